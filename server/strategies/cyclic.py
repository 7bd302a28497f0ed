"""Cyclic and institutional incremental learning: one site after the other trains the same weights.

Cyclic: round r is trained by site r modulo the number of sites. Incremental: each site has its turn
once, for its share of all rounds, and is then never asked again.

Source: Sheller et al. 2018, Multi-institutional deep learning modeling without sharing patient
data, section 2. The baselines that federated averaging is compared with.
"""

from collections.abc import Sequence
from dataclasses import replace

from server.strategies.fedavg import FEDAVG


def in_turn(round_: int, n_rounds: int, sites: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG001 - goes on for ever
    """Return the one site that trains in a round, counted from 1."""
    return (sites[(round_ - 1) % len(sites)],)


def one_after_the_other(round_: int, n_rounds: int, sites: Sequence[str]) -> tuple[str, ...]:
    """Return the one site that trains in a round; each has about as many rounds, in one piece."""
    return (sites[(round_ - 1) * len(sites) // n_rounds],)


CYCLIC = replace(FEDAVG, name="cyclic", participants=in_turn)
INCREMENTAL = replace(FEDAVG, name="incremental", participants=one_after_the_other)
