"""Soft Dice plus cross-entropy, over labels or over regions, with deep supervision.

Source: nnU-Net (Isensee et al. 2021): loss = cross-entropy - Dice, Dice without background,
smoothing 1e-5; the plan weighs the stages of deep supervision. Regions: binary cross-entropy and
Dice over all regions (nnU-Net for BraTS 2020).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from common.config import Output
from common.task import Task

SMOOTH = 1e-5  # nnU-Net


def targets_of(labels: Tensor, task: Task, output: Output) -> Tensor:
    """Turn label values (batch, z, y, x) into the network's target.

    Returns:
        For "labels" class indices (batch, z, y, x), int64, 0 background, then the foreground
        labels in ascending order; for "regions" truth values (batch, region, z, y, x), float32.
    """
    if output == "labels":
        lookup = torch.zeros(256, dtype=torch.int64, device=labels.device)
        for index, value in enumerate(task.foreground_labels, start=1):
            lookup[value] = index
        return lookup[labels.long()]
    lookup = torch.zeros(256, len(task.regions), device=labels.device)
    for index, members in enumerate(task.regions.values()):
        lookup[list(members), index] = 1.0
    return lookup[labels.long()].movedim(-1, 1)


def segmentation_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    task: Task,
    output: Output,
    *,
    batch_dice: bool,
    supervision: Sequence[float] = (1.0,),
) -> Tensor:
    """Return the deeply supervised loss, a float32 scalar.

    Args:
        logits: per stage (batch, output, z, y, x), finest first.
        labels: label values (batch, z, y, x) at the finest stage.
        task: says which labels make which region.
        output: softmax over labels or a sigmoid per region.
        batch_dice: sum over the batch before the ratio, instead of per sample.
        supervision: weight of each stage, finest first; one per stage.
    """
    total = torch.zeros((), device=labels.device)
    for stage, weight in zip(logits, supervision, strict=True):
        if weight > 0:
            target = targets_of(_downsample(labels, stage.shape[2:]), task, output)
            total = total + weight * dice_and_entropy(stage.float(), target, batch_dice=batch_dice)
    return total


def dice_and_entropy(logits: Tensor, target: Tensor, *, batch_dice: bool) -> Tensor:
    """Return cross-entropy minus mean soft Dice for one stage."""
    if target.is_floating_point():
        entropy = functional.binary_cross_entropy_with_logits(logits, target)
        return entropy - soft_dice(torch.sigmoid(logits), target, batch_dice=batch_dice)
    entropy = functional.cross_entropy(logits, target)
    foreground = torch.softmax(logits, dim=1)[:, 1:]
    classes = torch.arange(1, logits.shape[1], device=logits.device)
    truth = target.unsqueeze(1) == classes.view(1, -1, 1, 1, 1)
    return entropy - soft_dice(foreground, truth.float(), batch_dice=batch_dice)


def soft_dice(probability: Tensor, truth: Tensor, *, batch_dice: bool) -> Tensor:
    """Return the mean soft Dice over channels (and samples, unless `batch_dice`)."""
    axes = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    overlap = (probability * truth).sum(axes)
    sizes = probability.sum(axes) + truth.sum(axes)
    return ((2 * overlap + SMOOTH) / (sizes + SMOOTH)).mean()


def _downsample(labels: Tensor, shape: torch.Size) -> Tensor:
    if labels.shape[1:] == shape:
        return labels
    return functional.interpolate(labels[:, None].float(), tuple(shape), mode="nearest")[:, 0]
