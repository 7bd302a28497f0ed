"""How a method's models get better from round to round, as far as sites say so."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from server.event_log import read_events
from server.events import Event, SiteValidated, SumOpened


def validation_curve(events: Path, method: str) -> dict[int, float]:
    """Return by round, ascending, the mean over sites of the mean Dice over regions.

    Args:
        events: the run's log; of a site that answered the same round twice the last answer counts.
        method: whose rounds.

    Returns:
        The Dice of the weights after each round, from 1; rounds of which no site says anything are
        absent. That of a round is complete once the answers of the next one are.
    """
    return dice_by_round((event for _, event in read_events(events)), method)


def dice_by_round(events: Iterable[Event], method: str) -> dict[int, float]:
    """Return the same of events that are read already."""
    dice: dict[int, dict[str, float]] = defaultdict(dict)
    for event in events:
        if isinstance(event, SiteValidated) and event.method == method and event.round > 0:
            dice[event.round][event.site] = fmean(event.dice.values())
        elif isinstance(event, SumOpened) and event.method == method and event.dice:
            dice[event.round - 1][""] = fmean(event.dice.values())  # of the weights as received
    dice.pop(0, None)
    return {round_: fmean(by_site.values()) for round_, by_site in sorted(dice.items())}
