"""The exponential moving average of a method's models over its rounds, beside the models.

a_1 = w_1, a_t = decay a_(t-1) + (1 - decay) w_t over the rounds that changed the models. Rounds go
on from w; the average is part of the state, so that a resumed run ends with the same one, and is
what is tested in the end. Batch-norm statistics that sites keep are not averaged: they are those of
the last round, and a held-out site estimates its own for the average.

Source: Tarvainen and Valpola 2017, Mean teachers are better role models, equation of section 2,
applied to rounds; begun with the first weights, as torch's `AveragedModel` does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from common.axes import Weights
from server.strategies.fedavg import GLOBAL
from server.strategies.strategy import SiteUpdate, State, Strategy

AVERAGE = "average@"  # no site's name holds an @


def averaging(strategy: Strategy, decay: float) -> Strategy:
    """Return the method with the average of its models in its state; its rounds are the same."""
    return replace(
        strategy,
        weights_for=lambda state, site: strategy.weights_for(_own(state), site),
        aggregate=partial(_aggregate, strategy, decay),
        models=lambda state: strategy.models(_own(state)),
    )


def averaged(state: State) -> State:
    """Return the state with the averages in place of the models."""
    groups = {name: group for name, group in state.items() if name.startswith(AVERAGE)}
    return _own(state) | {name.removeprefix(AVERAGE): group for name, group in groups.items()}


def _aggregate(
    strategy: Strategy, decay: float, state: State, updates: Iterable[SiteUpdate]
) -> State:
    before = _own(state)
    after = strategy.aggregate(before, updates)
    if after is before:  # nobody answered, or too few
        return state
    averages = {
        f"{AVERAGE}{owner or GLOBAL}": _moved(
            state.get(f"{AVERAGE}{owner or GLOBAL}"), weights, decay
        )
        for owner, weights in strategy.models(after).items()
    }
    return {**after, **averages}


def _own(state: State) -> dict[str, Weights]:
    """Return the method's own part of the state; no tensor is copied."""
    return {name: group for name, group in state.items() if not name.startswith(AVERAGE)}


def _moved(average: Mapping[str, np.ndarray] | None, weights: Weights, decay: float) -> Weights:
    if average is None:
        return weights
    return {
        name: np.asarray(
            decay * average[name].astype(np.float64) + (1 - decay) * tensor, tensor.dtype
        )
        for name, tensor in weights.items()
    }
