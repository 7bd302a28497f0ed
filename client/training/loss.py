"""The loss of a training step: the run's terms, summed, on every supervised stage.

Source: nnU-Net (Isensee et al. 2021): the plan weighs the stages of deep supervision, whose targets
are the nearest labels. Regions: binary terms over all regions (nnU-Net for BraTS 2020).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from client.training.entropy import cross_entropy, focal, top_k
from client.training.overlap import (
    Overlap,
    focal_tversky,
    mean_over_outputs,
    overlap_of,
    soft_dice,
    tversky_index,
)
from common.config import Output
from common.losses import (
    NNUNET_LOSS,
    CrossEntropy,
    Dice,
    Focal,
    FocalTversky,
    Loss,
    LossTerm,
    TopK,
    Tversky,
)
from common.task import Task


def segmentation_loss(
    logits: Sequence[Tensor],
    labels: Tensor,
    task: Task,
    output: Output,
    *,
    batch_dice: bool,
    supervision: Sequence[float] = (1.0,),
    terms: Loss = NNUNET_LOSS,
) -> Tensor:
    """Return the deeply supervised loss, a float32 scalar.

    Args:
        logits: per stage (batch, output, [z,] y, x), finest first.
        labels: label values (batch, [z,] y, x) at the finest stage.
        task: says which labels make which region.
        output: softmax over labels or a sigmoid per region.
        batch_dice: sum over the batch before the ratio, instead of per sample.
        supervision: weight of each stage, finest first; one per stage.
        terms: what is summed on every stage.
    """
    total = torch.zeros((), device=labels.device)
    for stage, weight in zip(logits, supervision, strict=True):
        if weight > 0:
            target = targets_of(_downsample(labels, stage.shape[2:]), task, output)
            loss = stage_loss(stage.float(), target, terms, batch_dice=batch_dice)
            total = total + weight * loss
    return total


def stage_loss(logits: Tensor, target: Tensor, terms: Loss, *, batch_dice: bool) -> Tensor:
    """Return the weighted sum of the terms for one stage, a scalar.

    Args:
        logits: axes (batch, output, [z,] y, x).
        target: truth values of the same shape (regions), or class indices (batch, [z,] y, x).
        terms: at least one.
        batch_dice: as in `segmentation_loss`.
    """
    values = [term.weight * _term(term, logits, target, batch_dice=batch_dice) for term in terms]
    return sum(values[1:], values[0])


def targets_of(labels: Tensor, task: Task, output: Output) -> Tensor:
    """Turn label values (batch, [z,] y, x) into the network's target.

    Returns:
        For "labels" class indices (batch, [z,] y, x), int64, 0 background, then the foreground
        labels in ascending order; for "regions" truth values (batch, region, [z,] y, x), float32.
    """
    if output == "labels":
        lookup = torch.zeros(256, dtype=torch.int64)
        for index, value in enumerate(task.foreground_labels, start=1):
            lookup[value] = index
        return lookup.to(labels.device, non_blocking=True)[labels.long()]
    lookup = torch.zeros(256, len(task.regions))
    for index, members in enumerate(task.regions.values()):
        lookup[list(members), index] = 1.0
    return lookup.to(labels.device, non_blocking=True)[labels.long()].movedim(-1, 1)


def _term(term: LossTerm, logits: Tensor, target: Tensor, *, batch_dice: bool) -> Tensor:
    """Return one term, unweighted; overlap terms leave the background out."""
    weights = None if term.class_weights is None else logits.new_tensor(term.class_weights)
    match term:
        case CrossEntropy():
            return cross_entropy(logits, target, weights)
        case TopK():
            return top_k(logits, target, weights, term.percent)
        case Focal():
            return focal(logits, target, weights, term.gamma)
    of = overlap_of(logits, target, batch_dice=batch_dice)
    if weights is not None and not target.is_floating_point():
        weights = weights[1:]
    return mean_over_outputs(_overlap_loss(term, of), weights)


def _overlap_loss(term: Dice | Tversky | FocalTversky, of: Overlap) -> Tensor:
    match term:
        case Dice():
            return -soft_dice(of)
        case Tversky():
            return -tversky_index(of, term.alpha, term.beta)
        case FocalTversky():
            return focal_tversky(of, term.alpha, term.beta, term.gamma)


def _downsample(labels: Tensor, shape: torch.Size) -> Tensor:
    if labels.shape[1:] == shape:
        return labels
    return functional.interpolate(labels[:, None].float(), tuple(shape), mode="nearest")[:, 0]
