"""Aggregation methods: one file per paper, and the table from name to builder."""

from collections.abc import Callable

from common.federation import Federation, MethodName, ServerOptimizer
from server.strategies.bulyan import bulyan
from server.strategies.cyclic import CYCLIC, INCREMENTAL
from server.strategies.dwa import DWA
from server.strategies.fedavg import FEDAVG
from server.strategies.feddyn import feddyn
from server.strategies.fedopt import fedopt
from server.strategies.fedprox import fedprox
from server.strategies.ida import IDA
from server.strategies.krum import krum, multi_krum
from server.strategies.local_only import LOCAL_ONLY
from server.strategies.median import MEDIAN
from server.strategies.moving_average import averaging
from server.strategies.partial_sharing import partial_sharing
from server.strategies.strategy import SiteUpdate, State, Strategy
from server.strategies.trimmed_mean import trimmed_mean
from server.strategies.trust import trust

BUILDERS: dict[MethodName, Callable[[Federation], Strategy]] = {
    "fedavg": lambda _: FEDAVG,
    "fedprox": lambda federation: fedprox(federation.proximal_mu or 0.0),
    "feddyn": lambda federation: feddyn(federation.dynamic_alpha or 0.0),
    "fedavgm": lambda federation: fedopt("fedavgm", _optimizer(federation)),
    "fedadagrad": lambda federation: fedopt("fedadagrad", _optimizer(federation)),
    "fedadam": lambda federation: fedopt("fedadam", _optimizer(federation)),
    "fedyogi": lambda federation: fedopt("fedyogi", _optimizer(federation)),
    "ida": lambda _: IDA,
    "dwa": lambda _: DWA,
    "median": lambda _: MEDIAN,
    "trimmed-mean": lambda federation: trimmed_mean(federation.n_faulty or 0),
    "krum": lambda federation: krum(federation.n_faulty or 0),
    "multi-krum": lambda federation: multi_krum(federation.n_faulty or 0),
    "bulyan": lambda federation: bulyan(federation.n_faulty or 0),
    "trust": lambda federation: trust(federation.root_site or ""),
    "partial-sharing": lambda federation: partial_sharing(federation.withheld_fraction or 0.0),
    "cyclic": lambda _: CYCLIC,
    "incremental": lambda _: INCREMENTAL,
    "local-only": lambda _: LOCAL_ONLY,
}


def build_strategy(method: MethodName, federation: Federation) -> Strategy:
    """Return the strategy of a method with its parameters from the configuration."""
    strategy = BUILDERS[method](federation)
    decay = federation.average_decay
    return strategy if decay is None else averaging(strategy, decay)


def _optimizer(federation: Federation) -> ServerOptimizer:
    """Return the coordinator's optimiser; the configuration saw to it that there is one."""
    if federation.server_optimizer is None:
        raise ValueError("server_optimizer: missing")
    return federation.server_optimizer


__all__ = ["BUILDERS", "SiteUpdate", "State", "Strategy", "build_strategy"]
