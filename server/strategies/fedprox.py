"""FedProx: FedAvg whose sites minimise their loss + mu / 2 * ||w_i - w||^2.

Source: Li et al. 2020, Federated optimization in heterogeneous networks, algorithm 2. The term
is added by the sites (`client.training.train`); aggregation is FedAvg's.
"""

from dataclasses import replace

from server.strategies.fedavg import FEDAVG
from server.strategies.strategy import Strategy


def fedprox(mu: float) -> Strategy:
    """Return FedProx with the weight `mu` of the proximal term; 0 is FedAvg."""
    return replace(FEDAVG, name="fedprox", proximal_mu=mu)
