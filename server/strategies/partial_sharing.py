"""Partial sharing: FedAvg of updates of which every site withholds the smallest elements.

A withheld element counts as one that the site did not move: the next weights are
w + sum(n_i m_i d_i) / sum(n_i) with m_i = 1 where site i shared its update d_i, else 0. Where
nobody shared, the weight stays. (The mean over only those that shared an element would let the site
that moved it farthest speak for all.) Nothing withheld is FedAvg, bit for bit.

Source: reference 99 of "A review of federated learning in cancer", BrainLes 2021, where up to 0.4
of the update is withheld. Shokri and Shmatikov 2015, Privacy-preserving deep learning, add what is
shared to the weights; NVIDIA FLARE's percentile filter likewise sends 0 for the rest. The sites
withhold and the coordinator completes (`common.partial_sharing`); aggregation is FedAvg's.
"""

from dataclasses import replace

from server.strategies.fedavg import FEDAVG
from server.strategies.strategy import Strategy

PUBLISHED_FRACTION = 0.4  # the largest in the source


def partial_sharing(fraction: float) -> Strategy:
    """Return FedAvg whose sites withhold a fraction of their updates, in [0, 1); 0 is FedAvg."""
    return replace(FEDAVG, name="partial-sharing", withheld_fraction=fraction)
