"""What a run's events say about where it is, whom it waits for, and what its rounds cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.codec import read_toml, record
from common.config import RunConfig
from server.coordinator.wanted_runs import WantedRun
from server.event_log import read_events
from server.events import (
    ApprovalAwaited,
    Event,
    PlanMade,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SiteLeft,
    SiteMasked,
    SiteTrained,
)


@record
class SiteRound:
    """A site's part in the last round that it took part in."""

    site: str
    round: int
    seconds: float
    """Of its own training."""
    upload_bytes: int
    download_bytes: int


@record
class Overhead:
    """Seconds of finished rounds in which not even the slowest site trained."""

    n_rounds: int
    round_seconds: float
    """Of all these rounds together, by the coordinator's clock."""
    training_seconds: float
    """Of the slowest site of each."""

    @property
    def share(self) -> float:
        """Share of the rounds, from 0 to 1."""
        return max(0.0, 1 - self.training_seconds / self.round_seconds)


@record
class RunStatus:
    """Where a run is."""

    name: str
    folder: str
    state: str
    """finished, stopped, given up, or wanted: the supervisor keeps it going."""
    method: str | None = None
    round: int = 0
    """The last one that was finished, of `method`."""
    n_rounds: int = 0
    sites: tuple[SiteRound, ...] = ()
    waits_for: str = ""
    """In words; empty when it waits for nothing."""
    overhead: Overhead | None = None
    """None before a round has finished."""
    last_overhead: Overhead | None = None
    """Of the last round alone."""
    reason: str | None = None
    """Why it was given up."""
    last_failure: str | None = None
    """How its last attempt ended, while it is kept going without progress."""


def run_status(run: WantedRun) -> RunStatus:
    """Read where a run is; errors as in `read_events` and `read_toml`."""
    path, config = run.run.events, read_toml(RunConfig, run.run.config)
    events = [event for _, event in read_events(path)] if path.exists() else []
    rounds = [event for event in events if isinstance(event, RoundFinished)]
    method = _method(events) or config.federation.methods[0]
    ended = [event.round for event in rounds if event.method == method]
    state = _state(run, events)
    return RunStatus(
        name=run.run.name,
        folder=run.folder,
        state=state,
        method=method,
        round=max(ended, default=0),
        n_rounds=config.federation.rounds,
        sites=_last_rounds(events),
        waits_for=_waits_for(events, method, config) if state == "wanted" else "",
        overhead=overhead_of(events, rounds),
        last_overhead=overhead_of(events, rounds[-1:]),
        reason=run.given_up,
        last_failure=run.last_failure if state == "wanted" else None,
    )


def overhead_of(events: Sequence[Event], rounds: Sequence[RoundFinished]) -> Overhead | None:
    """Return what rounds cost beyond their slowest site's training; None without any."""
    slowest: dict[tuple[str, int], float] = {}
    for event in events:
        if isinstance(event, SiteTrained | SiteMasked):
            key = (event.method, event.round)
            slowest[key] = max(slowest.get(key, 0.0), event.seconds)
    total = sum(event.seconds for event in rounds)
    if total <= 0:
        return None
    training = sum(slowest.get((event.method, event.round), 0.0) for event in rounds)
    return Overhead(n_rounds=len(rounds), round_seconds=total, training_seconds=training)


def _state(run: WantedRun, events: Sequence[Event]) -> str:
    if any(isinstance(event, RunFinished) for event in events):
        return "finished"
    if run.given_up is not None:
        return "given up"
    return "stopped" if run.stopped else "wanted"


def _method(events: Sequence[Event]) -> str | None:
    """Return the method of the latest event of a round."""
    of_rounds = (SiteTrained, SiteMasked, SiteFailed, RoundFinished)
    return next((event.method for event in reversed(events) if isinstance(event, of_rounds)), None)


def _last_rounds(events: Sequence[Event]) -> tuple[SiteRound, ...]:
    last = {event.site: event for event in events if isinstance(event, SiteTrained | SiteMasked)}
    return tuple(
        SiteRound(
            site=site,
            round=event.round,
            seconds=event.seconds,
            upload_bytes=event.upload_bytes,
            download_bytes=event.download_bytes,
        )
        for site, event in sorted(last.items())
    )


def _waits_for(events: Sequence[Event], method: str, config: RunConfig) -> str:
    federation = config.federation
    there = _Members.of(events)
    if not any(isinstance(event, PlanMade) for event in events):
        if awaited := _awaited(events):
            return f"a person's approval at {', '.join(awaited)} (consilium site proposals there)"
        if there.training or there.held_out:
            return "the sites' plan and their preparation of the cases"
        n_held_out = len(federation.held_out)
        n_sites = federation.min_sites + n_held_out
        return f"sites to connect: {n_sites} are needed, of these held out: {n_held_out}"
    began = _last_index(events, (RoundFinished, RunStarted, PlanMade)) + 1
    answered = {
        event.site
        for event in events[began:]
        if isinstance(event, SiteTrained | SiteMasked | SiteFailed) and event.method == method
    }
    left = sorted(there.training - answered)
    return ", ".join(left)


def _awaited(events: Sequence[Event]) -> list[str]:
    """Return the sites whose approval this start of the run waits for."""
    began = _last_index(events, (RunStarted,)) + 1
    return sorted({event.site for event in events[began:] if isinstance(event, ApprovalAwaited)})


@dataclass(frozen=True)
class _Members:
    training: frozenset[str]
    held_out: frozenset[str]

    @classmethod
    def of(cls, events: Sequence[Event]) -> "_Members":
        roles: dict[str, str] = {}
        for event in events:
            if isinstance(event, SiteJoined):
                roles[event.site] = event.role
            elif isinstance(event, SiteLeft | SiteExcluded):
                roles.pop(event.site, None)
        held_out = frozenset(site for site, role in roles.items() if role == "held-out")
        return cls(frozenset(roles) - held_out, held_out)


def _last_index(events: Sequence[Event], kinds: tuple[type[Event], ...]) -> int:
    return max((n for n, event in enumerate(events) if isinstance(event, kinds)), default=-1)
