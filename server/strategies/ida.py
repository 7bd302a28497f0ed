"""IDA, inverse distance aggregation: sites far from the mean count less.

The share of a site is proportional to its count and to 1 / ||w_i - mean(w)||, the mean over sites
without weights; equal distances give FedAvg.

Source: Yeganeh et al. 2020, Inverse distance aggregation for federated learning with non-IID data.
The paper does not say what a distance of 0 means; here a thousandth of the mean distance is the
smallest that counts.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import gathered, tensors, weighted_mean
from server.strategies.strategy import SiteUpdate, State

SMALLEST = 1e-3  # of the mean distance


def aggregate(state: State, updates: Iterable[SiteUpdate]) -> State:
    """Return the mean by counts and inverse distances; without updates the state stays."""
    ordered = gathered(updates)
    if not ordered:
        return state
    squares = np.zeros(len(ordered))
    for _, values in tensors(ordered):
        squares += ((values - values.mean(axis=0)) ** 2).reshape(len(ordered), -1).sum(axis=1)
    distances = np.sqrt(squares)
    near = np.maximum(distances, SMALLEST * distances.mean())
    shares = np.array([update.count for update in ordered], np.float64)
    if near.all():
        shares /= near
    return {GLOBAL: weighted_mean(ordered, shares / shares.sum())}


IDA = replace(FEDAVG, name="ida", aggregate=aggregate)
