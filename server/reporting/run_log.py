"""The log of a run as a report reads it: what does not fit is told, and the rest is shown.

The coordinator's own reader (`server.event_log.read_events`) is strict on purpose: a run must not
be resumed from a log that it half understands. A report changes nothing, and is wanted most of all
when something went wrong.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from server.events import Event
from server.log_following import Line, Position, pieces, waiting_line
from server.log_lines import Timed, UnreadableLine, readings

MAX_REASON = 200  # characters


@dataclass(frozen=True)
class RunLog:
    """What a log says, in the order written."""

    timed: tuple[Timed, ...]
    unreadable: tuple[UnreadableLine, ...]

    @property
    def events(self) -> tuple[Event, ...]:
        """The events without their times."""
        return tuple(event for _, event in self.timed)


def read_log(path: Path) -> RunLog:
    """Read a log whatever state it is in: truncated, damaged, or of another version.

    Raises:
        OSError: when the file cannot be read.
    """
    found = list(readings(_lines(path)))
    return RunLog(
        tuple(one for one in found if isinstance(one, Timed)),
        tuple(_cut(one) for one in found if isinstance(one, UnreadableLine)),
    )


def _lines(path: Path) -> list[Line]:
    """Return all lines, the last one also without its end."""
    lines: list[Line] = []
    for piece in pieces(path, Position()):
        if piece.is_restart:
            lines.clear()
        lines += piece.lines
        if piece.is_last and (last := waiting_line(path, piece)):
            lines.append(last)
    return lines


def _cut(line: UnreadableLine) -> UnreadableLine:
    reason = line.reason
    short = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} ..."
    return replace(line, reason=short)
