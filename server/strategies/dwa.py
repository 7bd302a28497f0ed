"""DWA, dynamic weight averaging: sites whose loss falls more slowly count more.

The share of a site is proportional to exp(r_i / T) with r_i = L_i(t-1) / L_i(t-2), its mean
training losses of the two rounds before; a site that has not trained in both of them has r_i = 1.
The first two rounds are FedAvg.

Source: Liu et al. 2019, End-to-end multi-task learning with attention, equation 7 with T = 2,
applied to sites (reference 60 of "A review of federated learning in cancer", BrainLes 2021). Losses
are counted from their least possible value: with Dice in them they fall below 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from common.axes import Weights
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import gathered, weighted_mean
from server.strategies.strategy import SiteUpdate, State

TEMPERATURE = 2.0  # the source
LAST, BEFORE = "last-losses", "losses-before"


def init(weights: Weights, sites: Sequence[str]) -> State:  # noqa: ARG001 - one model for all sites
    """Return one shared model, and no losses yet."""
    return {GLOBAL: weights, LAST: {}, BEFORE: {}}


def aggregate(state: State, updates: Iterable[SiteUpdate]) -> State:
    """Return the mean by the losses of earlier rounds; without updates the state stays."""
    ordered = gathered(updates)
    if not ordered:
        return state
    last, before = state.get(LAST, {}), state.get(BEFORE, {})
    rates = [_rate(update.site, last, before) for update in ordered]
    if any(rate is not None for rate in rates):
        known = np.array([1.0 if rate is None else rate for rate in rates])
        shares = np.exp((known - known.max()) / TEMPERATURE)
    else:
        shares = np.array([update.count for update in ordered], np.float64)
    losses = {update.site: np.array(update.loss) for update in ordered}
    return {
        GLOBAL: weighted_mean(ordered, shares / shares.sum()),
        LAST: losses,
        BEFORE: dict(last),
    }


def _rate(
    site: str, last: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]
) -> float | None:
    """Return how much of a site's loss is left; None where that is not known."""
    if site not in last or site not in before or last[site] <= 0 or before[site] <= 0:
        return None
    return float(last[site] / before[site])


DWA = replace(FEDAVG, name="dwa", init=init, aggregate=aggregate)
