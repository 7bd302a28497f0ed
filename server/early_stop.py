"""Whether a method's rounds end before their time: its models no longer get better.

Judged by the mean validation Dice that sites release, from the run's own events, so that a resumed
run stops where an undisturbed one does. The Dice of a round's weights comes with the answers of
the round after it; only rounds whose answers are complete are looked at.
"""

from collections import defaultdict
from pathlib import Path
from statistics import fmean

from common.config import EarlyStop
from server.events import SiteValidated, read_events


def stops(wanted: EarlyStop | None, events: Path, method: str, next_round: int) -> str | None:
    """Return why a method stops before a round, in words; None if it goes on.

    Args:
        wanted: the run's configuration; None never stops.
        events: the run's log; a site that answered the same round twice counts once.
        method: whose rounds are looked at.
        next_round: the round that would begin.
    """
    if wanted is None:
        return None
    dice: dict[int, dict[str, float]] = defaultdict(dict)
    for _, event in read_events(events):
        if isinstance(event, SiteValidated) and event.method == method:
            dice[event.round][event.site] = fmean(event.dice.values())
    curve = {
        round_: fmean(by_site.values())
        for round_, by_site in sorted(dice.items())
        if 0 < round_ < next_round - 1  # the last round's Dice comes with the next one's answers
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
