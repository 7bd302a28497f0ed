"""Updates of all sites at once, for methods that compare them; memory grows with the sites.

Everything is in the order of the sites' names and in float64, so that the order of the replies
changes no bit of a result.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from server.strategies.strategy import SiteUpdate


def gathered(updates: Iterable[SiteUpdate]) -> list[SiteUpdate]:
    """Return the updates by name of site."""
    return sorted(updates, key=lambda update: update.site)


def tensors(updates: Sequence[SiteUpdate]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield every tensor's name with its values at all sites, axes (site, ...)."""
    for name in updates[0].weights:
        yield name, np.stack([update.weights[name].astype(np.float64) for update in updates])


def as_sent(values: NDArray[np.float64], update: SiteUpdate, name: str) -> NDArray[np.generic]:
    """Return a tensor in the number type in which sites send it."""
    return values.astype(update.weights[name].dtype)


def weighted_mean(updates: Sequence[SiteUpdate], shares: NDArray[np.float64]) -> Weights:
    """Return the mean of the updates by shares that sum to 1; of one update, that update."""
    if len(updates) == 1:
        return updates[0].weights
    return {
        name: as_sent(np.tensordot(shares, values, axes=1), updates[0], name)
        for name, values in tensors(updates)
    }


def squared_distances(updates: Sequence[SiteUpdate]) -> NDArray[np.float64]:
    """Return the squared Euclidean distance between every two updates, axes (site, site)."""
    total = np.zeros((len(updates), len(updates)))
    for _, values in tensors(updates):
        flat = values.reshape(len(updates), -1)
        for row, one in enumerate(flat):  # not by products: they cancel where sites agree
            total[row] += ((flat - one) ** 2).sum(axis=1)
    return total
