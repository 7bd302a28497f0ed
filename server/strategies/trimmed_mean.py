"""Trimmed mean: of every weight the f lowest and the f highest values go, the others are averaged.

Each site counts once. Up to f faulty sites cannot move a coordinate beyond the others' values.

Source: Yin et al. 2018, Byzantine-robust distributed learning, definition 2. Flower's
FedTrimmedAvg cuts a share instead of a number of sites.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from common.federation import withstood
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import as_sent, gathered, tensors
from server.strategies.strategy import SiteUpdate, State, Strategy


def trimmed_mean(n_faulty: int) -> Strategy:
    """Return the strategy that withstands so many faulty sites."""
    return replace(FEDAVG, name="trimmed-mean", aggregate=partial(_aggregate, n_faulty))


def _aggregate(n_faulty: int, state: State, updates: Iterable[SiteUpdate]) -> State:
    ordered = gathered(updates)
    if not ordered:
        return state
    n_cut = withstood("trimmed-mean", n_faulty, len(ordered))
    return {
        GLOBAL: {
            name: as_sent(
                np.sort(values, axis=0)[n_cut : len(ordered) - n_cut].mean(axis=0),
                ordered[0],
                name,
            )
            for name, values in tensors(ordered)
        }
    }
