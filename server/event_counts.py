"""How far a run is, by its events: quick answers for whoever only keeps it going."""

from collections.abc import Iterator
from pathlib import Path

from server.event_log import read_events
from server.events import (
    Event,
    FloorMeasured,
    HeldOutScored,
    PlanMade,
    RanksReleased,
    RoundFinished,
    RunFinished,
    SitePersonalised,
    SumsReleased,
)

STEPS = (
    PlanMade,
    RoundFinished,
    SitePersonalised,
    HeldOutScored,
    RanksReleased,
    SumsReleased,
    FloorMeasured,
)
"""What is not repeated when a run is resumed."""


def is_finished(path: Path) -> bool:
    """Return whether everything of a run was written; errors as in `read_events`."""
    return any(isinstance(event, RunFinished) for event in _events(path))


def n_steps_done(path: Path) -> int:
    """Return how many steps of a run are on the disk, of those that are not repeated."""
    return sum(isinstance(event, STEPS) for event in _events(path))


def _events(path: Path) -> Iterator[Event]:
    return (event for _, event in read_events(path)) if path.exists() else iter(())
