"""FedAvg: w <- sum(n_i w_i) / sum(n_i), with n_i the training cases of site i.

The configuration may have n_i count optimisation steps, or every site once (`server.weighting`).

Source: McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized
data, algorithm 1. Flower's own FedAvg keeps all replies in memory and sums floats in the order
of arrival; here the sum streams and is exact (`server.exact_sum`).
"""

from collections.abc import Iterable, Mapping, Sequence

from common.axes import Weights
from server.exact_sum import ExactSum, fold, mean
from server.strategies.strategy import SiteUpdate, State, Strategy

GLOBAL = "global"


def init(weights: Weights, sites: Sequence[str]) -> State:  # noqa: ARG001 - one model for all sites
    """Return the state that holds one shared model."""
    return {GLOBAL: weights}


def weights_for(state: State, site: str) -> Weights:  # noqa: ARG001 - one model for all sites
    """Return the shared model."""
    return state[GLOBAL]


def aggregate(state: State, updates: Iterable[SiteUpdate]) -> State:
    """Return the mean of the updates, each by its count; without updates the state stays."""
    total = ExactSum()
    for update in updates:
        fold(total, update.weights, update.count)
        del update  # before the next one arrives
    return {GLOBAL: mean(total)} if total.n_cases else state


def models(state: State) -> Mapping[str, Weights]:
    """Return the shared model."""
    return {"": state[GLOBAL]}


FEDAVG = Strategy("fedavg", init, weights_for, aggregate, models)
