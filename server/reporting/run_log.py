"""The log of a run as a report reads it: what does not fit is told, and the rest is shown.

The coordinator's own reader (`server.event_log.read_events`) is strict on purpose: a run must not
be resumed from a log that it half understands. A report changes nothing, and is wanted most of all
when something went wrong.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.errors import ConfigError
from server.event_log import event_of, numbered_lines
from server.events import Event

MAX_REASON = 200  # characters; a damaged line can be a megabyte
CUT_SHORT = "cut short or damaged: no JSON"


@dataclass(frozen=True)
class UnreadableLine:
    """A line of the log that a report cannot show."""

    number: int
    """From 1."""
    reason: str


@dataclass(frozen=True)
class RunLog:
    """What a log says, in the order written."""

    timed: tuple[tuple[datetime, Event], ...]
    unreadable: tuple[UnreadableLine, ...]

    @property
    def events(self) -> tuple[Event, ...]:
        """The events without their times."""
        return tuple(event for _, event in self.timed)


def read_log(path: Path) -> RunLog:
    """Read a log whatever state it is in: truncated, damaged, or of another version."""
    timed: list[tuple[datetime, Event]] = []
    unreadable: list[UnreadableLine] = []
    for number, line in numbered_lines(path):
        try:
            time, event = event_of(json.loads(line), "")
        except ConfigError as error:
            unreadable.append(UnreadableLine(number, _reason(str(error))))
        except (ValueError, RecursionError):
            unreadable.append(UnreadableLine(number, CUT_SHORT))
        else:
            timed.append((time if time.tzinfo else time.replace(tzinfo=UTC), event))
    return RunLog(tuple(timed), tuple(unreadable))


def _reason(text: str) -> str:
    lines = [line.removeprefix(": ") for line in text.splitlines()]
    reason = "; ".join(lines)
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} ..."
