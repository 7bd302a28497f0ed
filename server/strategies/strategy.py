"""What an aggregation method is: functions over an explicit state.

The state is named groups of tensors, all of it is checkpointed, and nothing else is remembered:
`aggregate(state, updates)` of equal arguments is equal, in any order of the updates.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from common.axes import Weights

State: TypeAlias = Mapping[str, Weights]
"""Groups of tensors by name: a global model, one model per site, moments of an optimiser."""


@dataclass(frozen=True)
class SiteUpdate:
    """An accepted update: everything about it was checked before it came here."""

    site: str
    count: int
    """How often it counts in a mean (`server.weighting`); only the ratio to others matters."""
    weights: Weights
    loss: float = 0.0
    """Mean training loss of the round, above the least that it can be."""


def everyone(round_: int, n_rounds: int, sites: Sequence[str]) -> tuple[str, ...]:  # noqa: ARG001 - the same in every round
    """Return all sites."""
    return tuple(sites)


@dataclass(frozen=True)
class Strategy:
    """A method of the literature as five functions and what the sites are told."""

    name: str
    init: Callable[[Weights, Sequence[str]], State]
    """(initial weights, training sites) -> state before the first round."""
    weights_for: Callable[[State, str], Weights]
    """(state, site) -> what this site trains from."""
    aggregate: Callable[[State, Iterable[SiteUpdate]], State]
    """(state, updates) -> next state; consumes the updates one at a time."""
    models: Callable[[State], Mapping[str, Weights]]
    """state -> models to test; the key is empty for the one shared model, else a site."""
    participants: Callable[[int, int, Sequence[str]], Sequence[str]] = everyone
    """(round, rounds in all, training sites) -> those that train in this round."""
    proximal_mu: float = 0.0
    """Sent to the sites; above 0 only for FedProx and FedDyn."""
    dynamic: bool = False
    """Sent to the sites; whether they tilt their losses as FedDyn has it."""
    required: Sequence[str] = ()
    """Sites without whose update a round does not count."""
    withheld_fraction: float = 0.0
    """Sent to the sites; above 0 only for partial sharing."""
