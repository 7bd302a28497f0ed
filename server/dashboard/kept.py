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
    SumsReleased,
)

MOST_FAULTS = 2000  # the newest; the log has them all
MOST_KEPT = 20_000  # of one kind; methods x sites or rounds of any study are fewer
MOST_BYTES = 32 * 2**20  # of all kinds
MOST_CHARACTERS = 1000  # of a reason
SAME: dict[type, Callable[[Any], Hashable]] = {
    Note: lambda event: event.text,
    SitePrivacySpent: lambda event: (event.method, event.round),
    SitePersonalised: lambda event: (event.method, event.site),
    PostprocessingChosen: lambda event: event.method,
    HeldOutScored: lambda event: (event.method, event.site),
    SumsReleased: lambda _: 0,
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
    n_bytes: int = 0
    """Of the lines of what is kept."""


def keep(kept: Kept, time: datetime, event: Any, n_bytes: int) -> None:
    """Keep an event, whose line has so many bytes, if a page shows it and there is room."""
    same = SAME.get(type(event))
    if same is not None:
        of_kind = kept.events.setdefault(type(event), {})
        key = same(event)
        if len(of_kind) < MOST_KEPT and kept.n_bytes < MOST_BYTES:
            kept.n_bytes += n_bytes
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
    reason = event.reason[:MOST_CHARACTERS]
    return Fault(time, event.method, event.round, event.site, code[:MOST_CHARACTERS], reason)
