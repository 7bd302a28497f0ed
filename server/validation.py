"""Checking a site's update completely before any of it is used.

Counting a site's cases before its weights are known to be good biases the mean for ever.
"""

import numpy as np

from common.axes import Weights
from common.errors import MessageError
from common.messages import TrainTask, Update
from server.exact_sum import MAX_CASES, MAX_WEIGHT
from server.sites import Reply


def check_update(reply: Reply[Update], task: TrainTask, sent: Weights) -> Weights:
    """Return the weights of an update that fits what was asked for.

    Raises:
        MessageError: for another round, no cases, missing or extra tensors, another shape or
            number type, values that are not finite or beyond the range of the exact sum.
    """
    update, weights = reply.value, reply.weights
    if update.round != task.round:
        raise MessageError(f"round: expected {task.round}, found {update.round}")
    if not 0 < update.n_cases <= MAX_CASES:
        raise MessageError(f"n_cases: expected 1 to {MAX_CASES}, found {update.n_cases}")
    if weights is None:
        raise MessageError("weights: expected, found none")
    if set(weights) != set(sent):
        different = sorted(set(weights) ^ set(sent))
        raise MessageError(f"weights: expected the tensors that were sent; differ in {different}")
    for name in sent:
        _check_tensor(name, weights[name], sent[name])
    return weights


def _check_tensor(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise MessageError(
            f"weights: {name}: expected {expected.dtype} {expected.shape}, "
            f"found {found.dtype} {found.shape}"
        )
    if not np.isfinite(found).all():
        raise MessageError(f"weights: {name}: expected finite values")
    if found.size and float(np.abs(found).max()) > MAX_WEIGHT:
        raise MessageError(f"weights: {name}: expected magnitudes up to {MAX_WEIGHT:.0f}")


def update_norm(weights: Weights, sent: Weights) -> float:
    """Return the L2 norm of the difference between returned and sent weights."""
    squares = (
        np.square(weights[name].astype(np.float64) - sent[name]).sum() for name in sorted(sent)
    )
    return float(np.sqrt(sum(squares)))
