"""Whether a method's rounds end before their time: its models no longer get better.

Judged by the mean validation Dice that sites release, from the run's own events, so that a resumed
run stops where an undisturbed one does. The Dice of a round's weights comes with the answers of
the round after it; only rounds whose answers are complete are looked at.
"""

from pathlib import Path

from common.federation import EarlyStop
from server.validation_curve import validation_curve


def stops(wanted: EarlyStop | None, events: Path, method: str, next_round: int) -> str | None:
    """Return why a method stops before a round, in words; None if it goes on.

    Args:
        wanted: the run's configuration; None never stops.
        events: the run's log.
        method: whose rounds are looked at.
        next_round: the round that would begin.
    """
    if wanted is None:
        return None
    curve = {
        round_: value
        for round_, value in validation_curve(events, method).items()
        if round_ < next_round - 1  # the last round's Dice comes with the next one's answers
    }
    best_round, best = 0, float("-inf")
    for round_, value in curve.items():
        if value >= best + wanted.min_improvement:
            best_round, best = round_, value
    last = max(curve, default=0)
    if last - best_round < wanted.patience_rounds:
        return None
    return (
        f"{method} stopped after {next_round - 1} rounds: mean validation Dice {best:.4f} after "
        f"round {best_round}, and no better by {wanted.min_improvement:g} up to round {last}"
    )
