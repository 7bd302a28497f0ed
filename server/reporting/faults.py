"""What went wrong in a run, as far as its log tells: the report's section of faults."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from server.events import (
    Event,
    ReplyIgnored,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteLeft,
    SiteTrained,
    SumLost,
)


@dataclass(frozen=True)
class Fault:
    """A reply that did not count, or a site that is no longer asked."""

    site: str
    method: str
    round: int
    code: str
    reason: str
    source: str = "one of SiteFailed|ReplyIgnored|SiteExcluded|SumLost.reason"
    """Where the reason stands in the log."""


@dataclass(frozen=True)
class Attempt:
    """One start of a run, up to the next one."""

    started_at: datetime
    resumed: bool
    ended_at: datetime
    """Time of its last event."""
    finished: bool


def faults_of(events: Iterable[Event]) -> Iterator[Fault]:
    """Yield what did not count or came late, and who is no longer there, in the log's order."""
    for event in events:
        match event:
            case SiteFailed():
                yield Fault(event.site, event.method, event.round, event.code, event.reason)
            case ReplyIgnored():
                yield Fault(event.site, event.method, event.round, "ignored", event.reason)
            case SiteExcluded():
                yield Fault(event.site, event.method, event.round, "excluded", event.reason)
            case SumLost():
                yield Fault("all sites", event.method, event.round, "sum lost", event.reason)
            case SiteLeft():
                yield Fault(event.site, "", 0, "left", "left the run; what it gave stays")
            case SiteTrained(late_rounds=late) if late:
                reason = f"counted {late} round{'s' if late > 1 else ''} after it was asked"
                source = "words from SiteTrained.late_rounds"
                yield Fault(event.site, event.method, event.round, "late", reason, source)


def attempts_of(timed: Iterable[tuple[datetime, Event]]) -> tuple[Attempt, ...]:
    """Return the starts of a run; what stands before the first one belongs to it."""
    found: list[Attempt] = []
    for time, event in timed:
        if isinstance(event, RunStarted):
            found.append(Attempt(time, event.resumed, time, finished=False))
        elif found:
            last = found[-1]
            finished = last.finished or isinstance(event, RunFinished)
            found[-1] = Attempt(last.started_at, last.resumed, time, finished)
    return tuple(found)
