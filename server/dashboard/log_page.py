"""What is asked of a run's log, and what a page of it shows."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class LogQuery:
    """What is looked for in a log; what is empty does not matter."""

    kind: str = ""
    """Name of an event, or `log_search.UNREADABLE`."""
    site: str = ""
    method: str = ""
    text: str = ""
    """Part of the line or of its words, whatever the case."""
    before: int | None = None
    """Lines with a smaller number only: the page after one whose `next_before` this is."""
    n_lines: int = 100
    """At most `log_search.MOST_LINES`."""


@dataclass(frozen=True)
class LogLine:
    """One line of a log in words."""

    number: int
    """From 1."""
    time: datetime | None
    kind: str
    """Name of the event; as the line says where it is unreadable."""
    method: str
    round: int | None
    site: str
    text: str
    """In words; of an unreadable line the reason and its beginning."""
    readable: bool


@dataclass(frozen=True)
class LogPage:
    """Lines that a query found, the newest first."""

    lines: tuple[LogLine, ...]
    next_before: int | None
    """For the next page; None when the log's beginning was reached."""
    complete: bool
    """False when the search ended early because it took too long: go on with `next_before`."""
    n_total: int
    """Lines of the log."""
