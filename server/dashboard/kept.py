"""Events that a page shows as they are; of equal ones the last, for resumed runs repeat work."""

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from server.dashboard.views import Fault
from server.events import (
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PostprocessingChosen,
    ReplyIgnored,
    SiteExcluded,
    SiteFailed,
    SitePersonalised,
    SitePrivacySpent,
)

MOST_FAULTS = 2000  # the newest; the log has them all
MOST_KEPT = 20_000  # of one kind; methods x sites or rounds of any study are fewer
SAME: dict[type, Callable[[Any], Hashable]] = {
    Note: lambda event: event.text,
    SitePrivacySpent: lambda event: (event.method, event.round),
    SitePersonalised: lambda event: (event.method, event.site),
    PostprocessingChosen: lambda event: event.method,
    HeldOutScored: lambda event: (event.method, event.site),
    FloorMeasured: lambda event: (event.site, event.region),
    PictureReleased: lambda event: (event.method, event.site, event.kind),
}
"""What makes two events of a kind the same, as in `server.reporting.report_data`."""


@dataclass
class Kept:
    """Events of a run by kind."""

    events: dict[type, dict[Hashable, tuple[datetime, Any]]] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=lambda: deque(maxlen=MOST_FAULTS))
    n_faults: int = 0


def keep(kept: Kept, time: datetime, event: Any) -> None:
    """Keep an event if a page shows it."""
    same = SAME.get(type(event))
    if same is not None:
        of_kind = kept.events.setdefault(type(event), {})
        key = same(event)
        if key in of_kind or len(of_kind) < MOST_KEPT:
            of_kind[key] = (time, event)
        return
    if isinstance(event, SiteFailed | ReplyIgnored | SiteExcluded):
        kept.n_faults += 1
        kept.faults.append(_fault(time, event))


def kept_of(kept: Kept, kind: type) -> list[tuple[datetime, Any]]:
    """Return the events of a kind, in the order in which they came first, with their times."""
    return list(kept.events.get(kind, {}).values())


def _fault(time: datetime, event: SiteFailed | ReplyIgnored | SiteExcluded) -> Fault:
    codes = {ReplyIgnored: "ignored", SiteExcluded: "excluded"}
    code = event.code if isinstance(event, SiteFailed) else codes[type(event)]
    return Fault(time, event.method, event.round, event.site, code, event.reason)
