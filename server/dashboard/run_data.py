"""All that is known of one run, brought up to what was appended to its log.

Lines are folded one by one into small states; none of them keeps the events of rounds. 120,000
lines take about 20 MB.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from common.errors import MessageError
from server.dashboard import cells, line_index
from server.dashboard.cells import Cells
from server.dashboard.course import Course, follow_course, pass_time
from server.dashboard.kept import Kept, keep
from server.dashboard.line_index import LineIndex, add_line
from server.dashboard.members import Members, follow_members
from server.dashboard.views import BestDice
from server.events import (
    Event,
    ReplyIgnored,
    RoundFinished,
    SiteFailed,
    SiteMasked,
    SiteTrained,
    SiteValidated,
    SumLost,
    SumOpened,
)
from server.log_following import Line, Position, pieces
from server.log_lines import Timed, UnreadableLine, read_line, refused

MOST_METHODS = 100
MOST_UNREADABLE_KEPT = 200
UNREADABLE = "unreadable"
BEGINNING = Position()


@dataclass
class RunData:
    """What the lines of a log, up to a position, come to."""

    position: Position = BEGINNING
    n_pending_bytes: int = 0
    """Of a last line that has no end yet."""
    course: Course = field(default_factory=Course)
    members: Members = field(default_factory=dict)
    cells: dict[str, Cells] = field(default_factory=dict)
    """By method."""
    kept: Kept = field(default_factory=Kept)
    index: LineIndex = field(default_factory=LineIndex)
    unreadable: list[UnreadableLine] = field(default_factory=list)
    """The first ones."""
    n_unreadable: int = 0
    best: dict[str, tuple[int, BestDice | None]] = field(default_factory=dict)
    """By method: the best of so many rounds, so that they are looked at once."""

    @property
    def n_bytes(self) -> int:
        """About how much memory it takes."""
        arrays = sum(cells.n_bytes(found) for found in self.cells.values())
        return arrays + line_index.n_bytes(self.index) + self.kept.n_bytes + 2**16


def follow(path: Path, data: RunData) -> RunData:
    """Fold what was appended to a log since; from the beginning if it is another one now.

    Args:
        path: of `events.jsonl`.
        data: is changed, unless the file was replaced.

    Raises:
        OSError: when the file cannot be read.
    """
    for piece in pieces(path, data.position):
        if piece.is_restart:
            data = RunData()
        for line in piece.lines:
            _fold(data, line)
        data.position, data.n_pending_bytes = piece.position, piece.n_pending_bytes
    return data


def _fold(data: RunData, line: Line) -> None:
    found = read_line(line)
    if isinstance(found, Timed):
        try:
            add_event(data, found.time, found.event, len(line.content))
        except (MessageError, OverflowError, ValueError) as error:
            found = refused(line, found, str(error))
    if isinstance(found, Timed):
        event: Any = found.event
        names = type(event).__name__, getattr(event, "method", ""), getattr(event, "site", "")
    else:
        if line.is_empty:
            return
        names = UNREADABLE, found.method, found.site
        data.n_unreadable += 1
        if len(data.unreadable) < MOST_UNREADABLE_KEPT:
            data.unreadable.append(found)
    kind, method, site = names
    add_line(data.index, line.number, line.begin, line.end, kind=kind, method=method, site=site)


def add_event(data: RunData, time: datetime, event: Event, n_bytes: int = 0) -> None:
    """Fold one event, whose line has so many bytes.

    Raises:
        MessageError: when its numbers are beyond what a run can have.
    """
    enter = CELL_STEPS.get(type(event))
    if enter is not None:
        enter(data, time, event)
    follow_members(data.members, time, event)
    pass_time(data.course, time)
    follow_course(data.course, time, event)
    keep(data.kept, time, event, n_bytes)


def _cells_of(data: RunData, method: str) -> Cells:
    found = data.cells.get(method)
    if found is None:
        if len(data.cells) >= MOST_METHODS:
            raise MessageError(f"method: expected at most {MOST_METHODS} methods in a run")
        cells.check_name(method)
        found = data.cells[method] = Cells()
    return found


def _answer(data: RunData, time: datetime, event: SiteTrained | SiteMasked) -> None:
    began = data.course.began or time
    delay_s = max(0.0, (time - began).total_seconds())
    cells.add_trained(_cells_of(data, event.method), event, delay_s)


def _end(data: RunData, time: datetime, event: RoundFinished) -> None:
    cells.add_end(_cells_of(data, event.method), event, time.timestamp())


CELL_STEPS: dict[type, Callable[[RunData, datetime, Any], None]] = {
    SiteTrained: _answer,
    SiteMasked: _answer,
    RoundFinished: _end,
    SiteValidated: lambda data, _, event: cells.add_dice(_cells_of(data, event.method), event),
    SiteFailed: lambda data, _, event: cells.add_trouble(_cells_of(data, event.method), event),
    ReplyIgnored: lambda data, _, event: cells.add_trouble(_cells_of(data, event.method), event),
    SumOpened: lambda data, _, event: cells.add_sum(_cells_of(data, event.method), event),
    SumLost: lambda data, _, event: cells.add_lost(_cells_of(data, event.method), event),
}
