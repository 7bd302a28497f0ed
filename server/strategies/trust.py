"""Trust bootstrapping (FLTrust): an update counts as far as it points where a clean one points.

The coordinator owns one of the training sites, the root, with a small data set that it knows to be
clean. The trust in another site is relu(cos(d_i, d_root)) of the updates d = w_i - w; its update is
rescaled to the root's norm, so that size gives no power, and the next weights are w plus the mean
of the rescaled updates by trust. A reversed update has trust 0, and the number of faulty sites does
not matter. The root's own update is only the reference. Where nobody is trusted, which the paper
leaves open, the root's update alone is taken; without it a round does not count.

All tensors that travel are one vector here. With `batch_norm = "shared"` statistics are among them,
whose sizes would decide the angle; the other settings keep them at the sites.

Source: Cao et al. 2021, FLTrust: Byzantine-robust federated learning via trust bootstrapping,
NDSS, algorithm 2, with the global learning rate 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from server.strategies.fedavg import FEDAVG, GLOBAL
from server.strategies.gathered import as_sent, gathered
from server.strategies.strategy import SiteUpdate, State, Strategy


def trust(root: str) -> Strategy:
    """Return the strategy whose root site is the coordinator's own."""
    return replace(FEDAVG, name="trust", aggregate=partial(_aggregate, root), required=(root,))


def trust_scores(
    before: Weights, root: Weights, updates: Sequence[SiteUpdate]
) -> Mapping[str, tuple[float, float]]:
    """Return by site (trust in [0, 1], factor that gives its update the root's norm).

    Args:
        before: what all trained from.
        root: what the root made of it.
        updates: of the other sites. One that changes nothing has no direction, and trust 0.
    """
    length = _norm(before, root)
    scores = {}
    for update in updates:
        own = _norm(before, update.weights)
        if own == 0 or length == 0:
            scores[update.site] = (0.0, 0.0)
            continue
        cosine = _product(before, root, update.weights) / (own * length)
        scores[update.site] = (min(1.0, max(0.0, cosine)), length / own)
    return scores


def _aggregate(root: str, state: State, updates: Iterable[SiteUpdate]) -> State:
    ordered = gathered(updates)
    reference = next((update.weights for update in ordered if update.site == root), None)
    if reference is None:
        return state
    before, others = state[GLOBAL], [update for update in ordered if update.site != root]
    scores = trust_scores(before, reference, others)
    total = sum(score for score, _ in scores.values())
    if total == 0:
        return {GLOBAL: reference}
    after: dict[str, NDArray[np.generic]] = {}
    for name, tensor in before.items():
        moved = np.zeros(tensor.shape)
        for update in others:
            score, factor = scores[update.site]
            if score:
                moved += score / total * factor * (update.weights[name].astype(np.float64) - tensor)
        after[name] = as_sent(np.asarray(tensor + moved), ordered[0], name)
    return {GLOBAL: after}


def _product(before: Weights, one: Weights, other: Weights) -> float:
    """Return the inner product of two updates, summed in one order on every machine."""
    parts = (
        ((one[name].astype(np.float64) - tensor) * (other[name].astype(np.float64) - tensor)).sum()
        for name, tensor in sorted(before.items())
    )
    return float(sum(parts))


def _norm(before: Weights, after: Weights) -> float:
    return float(np.sqrt(_product(before, after, after)))
