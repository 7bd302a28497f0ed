"""Bulyan: Krum chooses n - 2 f updates one after the other, then each weight is a trimmed mean.

Of every weight, the mean is taken over the values closest to the median, all but 2 f of the chosen
ones. A faulty update that Krum lets pass, for it is close to others in all coordinates but one, is
cut there. It withstands f faulty sites among at least 4 f + 3.

Source: El Mhamdi et al. 2018, The hidden vulnerability of distributed learning in Byzantium,
section 4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.federation import withstood
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import as_sent, gathered, squared_distances, tensors
from server.strategies.krum import scores
from server.strategies.strategy import SiteUpdate, State, Strategy


def bulyan(n_faulty: int) -> Strategy:
    """Return the strategy that withstands so many faulty sites."""
    return replace(FEDAVG, name="bulyan", aggregate=partial(_aggregate, n_faulty))


def _aggregate(n_faulty: int, state: State, updates: Iterable[SiteUpdate]) -> State:
    ordered = gathered(updates)
    if not ordered:
        return state
    n_among = withstood("bulyan", n_faulty, len(ordered))
    chosen = [ordered[index] for index in _chosen(squared_distances(ordered), n_among)]
    n_kept = len(chosen) - 2 * n_among
    return {
        GLOBAL: {
            name: as_sent(_around_median(values, n_kept), ordered[0], name)
            for name, values in tensors(chosen)
        }
    }


def _chosen(distances: NDArray[np.float64], n_faulty: int) -> Sequence[int]:
    """Return the places of the updates that Krum chooses, ascending."""
    left, chosen = list(range(len(distances))), []
    for _ in range(len(distances) - 2 * n_faulty):
        among = scores(distances[np.ix_(left, left)], n_faulty)
        chosen.append(left.pop(int(among.argmin())))
    return sorted(chosen)


def _around_median(values: NDArray[np.float64], n_kept: int) -> NDArray[np.float64]:
    """Return the mean of the values closest to the median, axes (site, ...)."""
    apart = np.abs(values - np.median(values, axis=0))
    closest = np.argsort(apart, axis=0, kind="stable")[:n_kept]
    return np.asarray(np.take_along_axis(values, closest, axis=0).mean(axis=0))
