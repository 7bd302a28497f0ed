"""Losses of overlap: soft Dice and Tversky, per output of the network.

Sources: Isensee et al. 2021 (Dice, smoothing); Salehi et al. 2017 (Tversky); Abraham and Khan 2019
(focal Tversky). "Sample" means a ratio per sample; "batch" one ratio of the sums over the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SMOOTH = 1e-5  # nnU-Net


@dataclass(frozen=True, eq=False)
class Overlap:
    """Probabilities and truth of what overlap is measured of, background left out."""

    probability: Tensor
    """Axes (batch, output, [z,] y, x), 0 to 1."""
    truth: Tensor
    """The same shape, 0 or 1."""
    batch_dice: bool
    """One ratio over the whole batch, instead of one per sample."""

    def axes(self) -> tuple[int, ...]:
        """Return the axes that the ratio's sums run over."""
        space = tuple(range(2, self.probability.ndim))
        return (0, *space) if self.batch_dice else space


def overlap_of(logits: Tensor, target: Tensor, *, batch_dice: bool) -> Overlap:
    """Return what overlap is measured of: regions by sigmoid, or foreground labels by softmax.

    Args:
        logits: axes (batch, output, [z,] y, x).
        target: truth values of the same shape, or class indices (batch, [z,] y, x).
        batch_dice: see `Overlap`.
    """
    if target.is_floating_point():
        return Overlap(torch.sigmoid(logits), target, batch_dice)
    foreground = torch.softmax(logits, dim=1)[:, 1:]
    classes = torch.arange(1, logits.shape[1], device=logits.device)
    truth = target.unsqueeze(1) == classes.view(1, -1, *(1,) * (target.ndim - 1))
    return Overlap(foreground, truth.to(logits.dtype), batch_dice)


def soft_dice(of: Overlap) -> Tensor:
    """Return soft Dice, axes (output) or (batch, output); 1 where nothing is and nothing found."""
    overlap = (of.probability * of.truth).sum(of.axes())
    sizes = of.probability.sum(of.axes()) + of.truth.sum(of.axes())
    return (2 * overlap + SMOOTH) / (sizes + SMOOTH)


def tversky_index(of: Overlap, alpha: float, beta: float) -> Tensor:
    """Return TP / (TP + alpha FN + beta FP), axes as `soft_dice`, smoothed like it."""
    found = (of.probability * of.truth).sum(of.axes())
    missed = of.truth.sum(of.axes()) - found
    in_vain = of.probability.sum(of.axes()) - found
    return (found + SMOOTH / 2) / (found + alpha * missed + beta * in_vain + SMOOTH / 2)


def focal_tversky(of: Overlap, alpha: float, beta: float, gamma: float) -> Tensor:
    """Return (1 - Tversky index)^gamma, axes as `soft_dice`."""
    lacking = 1 - tversky_index(of, alpha, beta)
    return torch.clamp(lacking, min=SMOOTH) ** gamma  # at 0 the gradient of a root is infinite


def mean_over_outputs(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over outputs (and samples), weighted by output if weights are given."""
    if weights is None:
        return values.mean()
    return (values * weights).sum(-1).mean() / weights.sum()
