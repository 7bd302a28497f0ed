"""How soon a method got how good, in simulated time: the FeTS challenge's convergence score.

Source: FeTS Challenge 2022, task 1 (``fets-ai/Challenge``): area under "best mean Dice so far" over
the simulated time of one week.
"""

from collections.abc import Sequence
from itertools import accumulate

from common.codec import record
from server.events import Event, RoundFinished
from server.validation_curve import dice_by_round

LIMIT_S = 7 * 24 * 3600.0  # FeTS Challenge 2022


@record
class Convergence:
    """Of one method of a simulated run."""

    method: str
    simulated_s: float
    """Of all its rounds together."""
    score: float
    """0 to 1; later rounds than the first week's do not count."""


def convergence_score(curve: Sequence[tuple[float, float]], limit_s: float = LIMIT_S) -> float:
    """Return the area under "best mean Dice so far" over simulated time, 0 to 1.

    Args:
        curve: (seconds since the method began, mean Dice), in the order of time; before the first
            entry the Dice counts as 0, after the last one the best so far goes on.
        limit_s: the time that counts; entries after it do not.
    """
    area = best = then = 0.0
    for seconds, dice in (point for point in curve if point[0] <= limit_s):
        area += best * (seconds - then)
        then, best = seconds, max(best, dice)
    return (area + best * (limit_s - then)) / limit_s


def convergences(events: Sequence[Event]) -> tuple[Convergence, ...]:
    """Return the score of every method whose rounds took simulated time; in their order."""
    took: dict[str, dict[int, float]] = {}
    for event in events:
        if isinstance(event, RoundFinished) and event.simulated_s is not None:
            took.setdefault(event.method, {})[event.round] = event.simulated_s
    return tuple(_convergence(events, method, rounds) for method, rounds in took.items())


def _convergence(events: Sequence[Event], method: str, took: dict[int, float]) -> Convergence:
    ended = dict(zip(sorted(took), accumulate(took[n] for n in sorted(took)), strict=True))
    dice = dice_by_round(events, method)
    curve = [(ended[n], dice[n]) for n in ended if n in dice]
    total = max(ended.values())
    return Convergence(method=method, simulated_s=total, score=convergence_score(curve))
