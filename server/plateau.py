"""What a plateau of the training loss does to the learning rate of the next round.

The rule is `common.schedules`; the losses are those that the run's own events hold, so that a
resumed run sends the same factor.
"""

import math
from collections import defaultdict
from pathlib import Path

from common.schedules import Plateau, Schedule, plateau_factor
from server.event_log import read_events
from server.events import SiteTrained, SumOpened


def rate_factor(schedule: Schedule, events: Path, method: str, round_: int) -> float:
    """Return what a round's learning rate is multiplied by; 1 unless the schedule is a plateau.

    Args:
        schedule: of the run.
        events: the run's log; a site that answered the same round twice counts once.
        method: whose rounds are looked at.
        round_: the round that is about to begin.
    """
    if not isinstance(schedule, Plateau):
        return 1.0
    rounds: dict[int, dict[str, SiteTrained]] = defaultdict(dict)
    summed: dict[int, float] = {}
    for _, event in read_events(events):
        if isinstance(event, SiteTrained) and event.method == method and event.round < round_:
            rounds[event.round][event.site] = event
        if isinstance(event, SumOpened) and event.method == method and event.round < round_:
            summed[event.round] = event.loss or 0.0  # none is private
    losses = {number: mean_loss(trained) for number, trained in rounds.items()} | summed
    return plateau_factor(schedule, [losses[number] for number in sorted(losses)])


def mean_loss(trained: dict[str, SiteTrained]) -> float:
    """Return the mean over sites, weighted by cases; the order of the answers does not matter."""
    n_cases = sum(event.n_cases for event in trained.values())
    losses = [(event.loss or 0.0, event.n_cases) for event in trained.values()]  # none is private
    if n_cases == 0:
        return math.fsum(loss for loss, _ in losses) / len(trained)
    return math.fsum(loss * count for loss, count in losses) / n_cases
