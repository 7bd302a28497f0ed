"""Losses of single voxels: cross-entropy, its worst part, and focal; softmax or binary.

Sources: Wu et al. 2016 (top-k); Lin et al. 2017 (focal).
"""

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST = 1e-7  # of 1 - p, where a root's gradient would be infinite


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean cross-entropy, a scalar.

    Args:
        logits: axes (batch, output, [z,] y, x).
        target: truth values of the same shape (binary), or class indices (batch, [z,] y, x).
        weights: one per output; the mean becomes the weighted mean.
    """
    if weights is not None:
        return _mean(*_by_voxel(logits, target, weights))
    if target.is_floating_point():
        return functional.binary_cross_entropy_with_logits(logits, target)
    return functional.cross_entropy(logits, target)


def top_k(logits: Tensor, target: Tensor, weights: Tensor | None, percent: float) -> Tensor:
    """Return the mean over the worst voxels, at least one; arguments as `cross_entropy`."""
    values, scale = _by_voxel(logits, target, weights)
    values = (values * scale / scale.mean()).flatten()
    n_worst = max(1, round(values.numel() * percent / 100))
    return values.topk(n_worst, sorted=False).values.mean()


def focal(logits: Tensor, target: Tensor, weights: Tensor | None, gamma: float) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p; arguments as `cross_entropy`."""
    values, scale = _by_voxel(logits, target, weights)
    unsure = torch.clamp(-torch.expm1(-values), min=SMALLEST)  # 1 - p
    return _mean(unsure**gamma * values, scale)


def _by_voxel(logits: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy and the weight of every voxel (and region)."""
    if target.is_floating_point():
        values = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        of_output = torch.ones(target.shape[1], device=target.device).to(values.dtype)
        given = of_output if weights is None else weights
        return values, given.view(1, -1, *(1,) * (target.ndim - 2)).expand_as(values)
    values = functional.cross_entropy(logits, target, reduction="none")
    return values, torch.ones_like(values) if weights is None else weights[target]


def _mean(values: Tensor, scale: Tensor) -> Tensor:
    return (values * scale).sum() / scale.sum()
