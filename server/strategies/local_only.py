"""Local only: every site trains its own model; nothing is shared. The baseline of federation.

The sites start from the same initial weights. Their models come to the coordinator in order to
be tested on held-out sites; they are never combined.
"""

from collections.abc import Iterable, Mapping, Sequence

from common.axes import Weights
from server.strategies.strategy import SiteUpdate, State, Strategy


def init(weights: Weights, sites: Sequence[str]) -> State:
    """Return one model per site, all equal."""
    return dict.fromkeys(sites, weights)


def weights_for(state: State, site: str) -> Weights:
    """Return the site's own model."""
    return state[site]


def aggregate(state: State, updates: Iterable[SiteUpdate]) -> State:
    """Replace the model of every site that answered."""
    return {**state, **{update.site: update.weights for update in updates}}


def models(state: State) -> Mapping[str, Weights]:
    """Return every site's model."""
    return state


LOCAL_ONLY = Strategy("local-only", init, weights_for, aggregate, models)
