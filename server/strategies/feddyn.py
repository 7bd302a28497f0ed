"""FedDyn: every site's loss is tilted so that its own optimum becomes the federation's.

A site minimises L_i(w) - <g_i, w> + alpha / 2 * ||w - w_received||^2 and keeps g_i
(`client.training.drift`); nothing but weights travels. The coordinator corrects their plain mean by
how far all have moved: r <- r - 1/m sum(w_i - w) over the sites that answered, m all sites, and
w <- mean(w_i) - r. (The paper's h is alpha * r.) Every site counts once, as in the paper.
Batch-norm statistics are no parameters: the configuration has to keep them at the sites.

Source: Acar et al. 2021, Federated learning based on dynamic regularization, algorithm 1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.strategy import SiteUpdate, State, Strategy

CORRECTION, FEDERATION, N_SITES = "correction", "federation", "n-sites"


def feddyn(alpha: float) -> Strategy:
    """Return the strategy with the weight `alpha` of the dynamic regularisation."""
    return replace(
        FEDAVG, name="feddyn", init=init, aggregate=aggregate, proximal_mu=alpha, dynamic=True
    )


def init(weights: Weights, sites: Sequence[str]) -> State:
    """Return the shared model, no correction yet, and the number of sites."""
    return {
        GLOBAL: weights,
        CORRECTION: {name: np.zeros(tensor.shape) for name, tensor in weights.items()},
        FEDERATION: {N_SITES: np.array(len(sites), np.float64)},
    }


def aggregate(state: State, updates: Iterable[SiteUpdate]) -> State:
    """Return the corrected mean; without updates the state stays."""
    answered: list[str] = []
    averaged = FEDAVG.aggregate(state, _alike(updates, answered))
    if averaged is state:
        return state
    share = len(answered) / float(state[FEDERATION][N_SITES])
    moved: dict[str, NDArray[np.generic]] = {}
    corrections: dict[str, NDArray[np.float64]] = {}
    for name, tensor in state[GLOBAL].items():
        mean = averaged[GLOBAL][name].astype(np.float64)
        correction = np.asarray(state[CORRECTION][name] - share * (mean - tensor))
        corrections[name] = correction
        moved[name] = np.asarray(mean - correction, tensor.dtype)
    return {GLOBAL: moved, CORRECTION: corrections, FEDERATION: state[FEDERATION]}


def _alike(updates: Iterable[SiteUpdate], answered: list[str]) -> Iterator[SiteUpdate]:
    """Yield every update with the count 1, and note who sent it."""
    for update in updates:
        answered.append(update.site)
        yield replace(update, count=1)
