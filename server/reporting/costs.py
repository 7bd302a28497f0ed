"""What a run cost: time per phase, bytes and training time per site, and rounds' overhead."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from server.events import (
    ApprovalAwaited,
    Event,
    FloorMeasured,
    HeldOutScored,
    PictureReleased,
    PlanMade,
    PostprocessingChosen,
    RanksReleased,
    RunFinished,
    RunStarted,
    SiteFailed,
    SiteJoined,
    SiteMasked,
    SitePersonalised,
    SiteTrained,
)
from server.reporting.report_data import ReportData, method_label

JOINING = "Joining and fingerprints"
PLANNING = "Planning, and preparation of the cases"
TESTING = "Test on held-out sites"
ENDING = "Ranking and end"
KINDS: tuple[tuple[tuple[type[Event], ...], str], ...] = (
    ((SiteJoined,), JOINING),
    ((ApprovalAwaited, PlanMade), PLANNING),
    ((SitePersonalised,), "Comparison with sites' own models"),
    ((PostprocessingChosen,), "Search for post-processing"),
    ((HeldOutScored, PictureReleased, RanksReleased, FloorMeasured), TESTING),
    ((RunFinished,), ENDING),
)


@dataclass(frozen=True)
class Phase:
    """The time between the events of one kind and those before them, all starts together."""

    name: str
    seconds: float


@dataclass(frozen=True)
class SiteCost:
    """What one training site spent, every attempt and every repetition of a round."""

    site: str
    n_updates: int
    seconds: float
    """Of training, by the site's own clock."""
    upload_bytes: int
    download_bytes: int


@dataclass(frozen=True)
class RoundTime:
    """How long one round took, and how much of that was training."""

    round: int
    seconds: float
    training_seconds: float
    """Of the slowest site; of all sites where they trained one after another."""


@dataclass(frozen=True)
class RoundCost:
    """How long the rounds of one method took, and how much of that was training."""

    method: str
    n_rounds: int
    seconds: float
    training_seconds: float

    @property
    def overhead(self) -> float:
        """Share of the rounds in which nobody trained, 0 to 1."""
        return max(0.0, 1 - self.training_seconds / self.seconds) if self.seconds else 0.0


def phases(timed: Sequence[tuple[datetime, Event]]) -> tuple[Phase, ...]:
    """Return the phases of a run in the order in which they first came.

    The time up to an event belongs to the event's phase; what lies between an interruption and
    the next start belongs to none.
    """
    found: dict[str, float] = {}
    before: datetime | None = None
    for time, event in timed:
        name = _phase_of(event)
        if before is not None and name:
            seconds = (time - before).total_seconds()
            found[name] = found.get(name, 0.0) + max(0.0, seconds)
        if name or isinstance(event, RunStarted):  # a note's time is the next event's
            before = time
    return tuple(Phase(name, seconds) for name, seconds in found.items())


def site_costs(data: ReportData) -> tuple[SiteCost, ...]:
    """Return what the training sites spent, in the order in which they joined."""
    events = [event for event in data.log.events if isinstance(event, SiteTrained | SiteMasked)]
    failed = [event for event in data.log.events if isinstance(event, SiteFailed)]
    names = dict.fromkeys([*data.training_sites, *(event.site for event in events)])
    return tuple(
        SiteCost(
            site=name,
            n_updates=sum(event.site == name for event in events),
            seconds=sum(event.seconds for event in events if event.site == name),
            upload_bytes=sum(event.upload_bytes for event in events if event.site == name),
            download_bytes=sum(
                event.download_bytes for event in (*events, *failed) if event.site == name
            ),
        )
        for name in names
    )


def total(costs: Iterable[SiteCost]) -> SiteCost:
    """Return the costs of all sites together."""
    rows = tuple(costs)
    return SiteCost(
        site="All sites",
        n_updates=sum(row.n_updates for row in rows),
        seconds=sum(row.seconds for row in rows),
        upload_bytes=sum(row.upload_bytes for row in rows),
        download_bytes=sum(row.download_bytes for row in rows),
    )


def round_costs(data: ReportData) -> tuple[RoundCost, ...]:
    """Return what the finished rounds of every method took."""
    return tuple(
        RoundCost(
            method=method,
            n_rounds=len(times),
            seconds=sum(one.seconds for one in times),
            training_seconds=sum(one.training_seconds for one in times),
        )
        for method, times in round_times(data).items()
    )


def round_times(data: ReportData) -> dict[str, tuple[RoundTime, ...]]:
    """Return the finished rounds by method, in the order of both; only methods with rounds."""
    together = sum if trained_in_turn(data) else max
    trained: dict[tuple[str, int], list[float]] = {}
    answers: list[SiteTrained | SiteMasked] = [*data.trained, *data.masked]
    for event in answers:
        trained.setdefault((event.method, event.round), []).append(event.seconds)
    found: dict[str, list[RoundTime]] = {}
    for done in sorted(data.rounds, key=lambda event: event.round):
        seconds = trained.get((done.method, done.round), [0.0])
        time = RoundTime(done.round, done.seconds, together(seconds))
        found.setdefault(done.method, []).append(time)
    return {method: tuple(found[method]) for method in data.methods if method in found}


def trained_in_turn(data: ReportData) -> bool:
    """Return whether the sites shared one machine, so that their times of a round add up."""
    return data.config is not None and data.config.simulation is not None


def _phase_of(event: Event) -> str:
    for kinds, name in KINDS:
        if isinstance(event, kinds):
            return name
    method = getattr(event, "method", "")
    return f"Rounds of {method_label(method)}" if method else ""
