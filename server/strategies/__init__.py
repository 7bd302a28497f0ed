"""Aggregation methods: one file per paper, and the table from name to builder."""

from collections.abc import Callable

from common.config import Federation, MethodName
from server.strategies.fedavg import FEDAVG
from server.strategies.fedprox import fedprox
from server.strategies.local_only import LOCAL_ONLY
from server.strategies.strategy import SiteUpdate, State, Strategy

BUILDERS: dict[MethodName, Callable[[Federation], Strategy]] = {
    "fedavg": lambda _: FEDAVG,
    "fedprox": lambda federation: fedprox(federation.proximal_mu or 0.0),
    "local-only": lambda _: LOCAL_ONLY,
}


def build_strategy(method: MethodName, federation: Federation) -> Strategy:
    """Return the strategy of a method with its parameters from the configuration."""
    return BUILDERS[method](federation)


__all__ = ["BUILDERS", "SiteUpdate", "State", "Strategy", "build_strategy"]
