"""FedAvgM, FedAdagrad, FedAdam, FedYogi: an optimiser at the coordinator follows the mean update.

With d = mean(w_i) - w, the mean weighted by cases, and everything elementwise:

    m <- beta1 m + (1 - beta1) d
    v <- v + d^2                                   FedAdagrad
    v <- beta2 v + (1 - beta2) d^2                 FedAdam
    v <- v - (1 - beta2) d^2 sign(v - d^2)         FedYogi
    w <- w + eta m / (sqrt(v) + tau)

v begins as tau^2. FedAvgM: m <- beta1 m + d; w <- w + eta m.

Sources: Reddi et al. 2021, Adaptive federated optimization, algorithm 2; FedAvgM: Hsu et al. 2019,
Measuring the effects of non-identical data distribution. Flower's FedAdam begins v as 0 and
corrects m and v for their beginning, which the paper does not; its classes keep the moments in the
process only. Here they are part of the checkpoint: a resumed run is the undisturbed one. Moments
are kept in the type of the weights, as torch's optimisers keep them, and reckoned in float64.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from common.federation import ServerOptimizer
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.strategy import SiteUpdate, State, Strategy

FIRST, SECOND = "first-moment", "second-moment"
Rule = Literal["fedavgm", "fedadagrad", "fedadam", "fedyogi"]
Array = NDArray[np.float64]


def fedopt(rule: Rule, optimizer: ServerOptimizer) -> Strategy:
    """Return the strategy of one of the rules."""
    return replace(
        FEDAVG,
        name=rule,
        init=partial(_init, rule, optimizer),
        aggregate=partial(_aggregate, rule, optimizer),
    )


def _init(rule: Rule, optimizer: ServerOptimizer, weights: Weights, sites: Sequence[str]) -> State:  # noqa: ARG001 - one model for all sites
    moments = {FIRST: {name: np.zeros_like(tensor) for name, tensor in weights.items()}}
    if rule != "fedavgm":
        begin = optimizer.tau**2
        moments[SECOND] = {name: np.full_like(tensor, begin) for name, tensor in weights.items()}
    return {GLOBAL: weights, **moments}


def _aggregate(
    rule: Rule, optimizer: ServerOptimizer, state: State, updates: Iterable[SiteUpdate]
) -> State:
    averaged = FEDAVG.aggregate(state, updates)
    if averaged is state:  # nobody answered
        return state
    mean = dict(averaged[GLOBAL])
    del averaged  # each tensor of the mean is let go as soon as it is used
    after: dict[str, dict[str, NDArray[np.generic]]] = {group: {} for group in state}
    for name, tensor in state[GLOBAL].items():
        step = mean.pop(name).astype(np.float64) - tensor
        if rule == "fedavgm":
            first = optimizer.beta1 * state[FIRST][name] + step
            moved = tensor + optimizer.learning_rate * first
        else:
            first = optimizer.beta1 * state[FIRST][name] + (1 - optimizer.beta1) * step
            second = _second(rule, optimizer, state[SECOND][name], step**2)
            moved = tensor + optimizer.learning_rate * first / (np.sqrt(second) + optimizer.tau)
            after[SECOND][name] = second.astype(tensor.dtype)
        after[FIRST][name] = first.astype(tensor.dtype)
        after[GLOBAL][name] = moved.astype(tensor.dtype)
    return after


def _second(rule: Rule, optimizer: ServerOptimizer, before: Array, squared: Array) -> Array:
    if rule == "fedadagrad":
        return before + squared
    share = 1 - optimizer.beta2
    if rule == "fedadam":
        return optimizer.beta2 * before + share * squared
    return before - share * squared * np.sign(before - squared)
