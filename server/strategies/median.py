"""Coordinate median: every weight is the median over the sites, each site counting once.

A minority of sites, whatever it sends, cannot move a coordinate beyond the values of the others.

Source: Yin et al. 2018, Byzantine-robust distributed learning, definition 1. Flower's FedMedian
gives the same numbers and is not used because it hands over replies in the order of their arrival.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import as_sent, gathered, tensors
from server.strategies.strategy import SiteUpdate, State


def aggregate(state: State, updates: Iterable[SiteUpdate]) -> State:
    """Return the median of the updates; without updates the state stays."""
    ordered = gathered(updates)
    if not ordered:
        return state
    return {
        GLOBAL: {
            name: as_sent(np.median(values, axis=0), ordered[0], name)
            for name, values in tensors(ordered)
        }
    }


MEDIAN = replace(FEDAVG, name="median", aggregate=aggregate)
