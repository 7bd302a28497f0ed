"""Krum and Multi-Krum: the update that lies closest to most others, or the mean of those that do.

The score of an update is the sum of its squared distances to the n - f - 2 updates nearest to it.
Krum takes the one of the lowest score, Multi-Krum the mean of the n - f lowest, each site counting
once. It withstands f faulty sites among at least 2 f + 3.

Source: Blanchard et al. 2017, Machine learning with adversaries: Byzantine tolerant gradient
descent, section 4. Flower's Krum takes distances from products of the float32 weights, which cancel
where sites agree: ||x||^2 + ||y||^2 - 2 x.y.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.federation import withstood
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import gathered, squared_distances, weighted_mean
from server.strategies.strategy import SiteUpdate, State, Strategy


def krum(n_faulty: int) -> Strategy:
    """Return the strategy that takes a single update."""
    return replace(FEDAVG, name="krum", aggregate=partial(_aggregate, n_faulty, 1))


def multi_krum(n_faulty: int) -> Strategy:
    """Return the strategy that averages all updates but the most distant ones."""
    return replace(FEDAVG, name="multi-krum", aggregate=partial(_aggregate, n_faulty, None))


def scores(distances: NDArray[np.float64], n_faulty: int) -> NDArray[np.float64]:
    """Return the score of every update, lower is better.

    Args:
        distances: squared, axes (site, site).
        n_faulty: how many sites may be faulty.
    """
    n_nearest = max(1, len(distances) - n_faulty - 2)
    nearest = np.sort(distances, axis=1)[:, 1 : 1 + n_nearest]  # without the distance to itself
    return np.asarray(nearest.sum(axis=1))


def _aggregate(
    n_faulty: int,
    n_kept: int | None,
    state: State,
    updates: Iterable[SiteUpdate],
) -> State:
    ordered = gathered(updates)
    if not ordered:
        return state
    n_among = withstood("krum", n_faulty, len(ordered))
    kept = _kept(ordered, n_among, n_kept or len(ordered) - n_among)
    return {GLOBAL: weighted_mean(kept, np.full(len(kept), 1 / len(kept)))}


def _kept(ordered: Sequence[SiteUpdate], n_faulty: int, n_kept: int) -> list[SiteUpdate]:
    """Return the updates of the lowest scores, by name of site."""
    order = np.argsort(scores(squared_distances(ordered), n_faulty), kind="stable")
    return [ordered[index] for index in sorted(order[:n_kept].tolist())]
