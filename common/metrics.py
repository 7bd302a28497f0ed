"""Dice, HD95, sensitivity and specificity of a region, and the rules for empty regions as data.

No library follows the BraTS rules for empty regions by itself (they raise, return NaN, or return
a perfect 0), so the rules stand here once, in `EmptyRules`, and everything asks them.

Sources:
    Dice, sensitivity, specificity, empty regions: CaPTk, BraTSMetrics.
    HD95: see `common.surface`.
"""

import math
from dataclasses import dataclass
from functools import reduce

import numpy as np

from common.axes import LabelMap, Mask, SpacingMm
from common.bits import Bits, count, pack
from common.codec import record
from common.surface import HD95_DEFINITIONS, Hd95, bit_distances, label_box
from common.task import Task


@dataclass(frozen=True)
class RegionScore:
    """How well one region of one case was found. About a patient: leaves by site policy only.

    NaN stands for a value that is missing; it comes from files, never from scoring.
    """

    dice: float
    """2 TP / (2 TP + FP + FN), 0 to 1."""
    hd95: float
    """95th percentile of the surface distances in mm, in the definition that was asked for."""
    sensitivity: float
    """TP / (TP + FN), 0 to 1."""
    specificity: float
    """TN / (TN + FP) over the whole image, 0 to 1."""


@record
class EmptyRules:
    """What a region scores where a formula has no answer. May leave the site."""

    both_empty: RegionScore
    """Neither the reference nor the prediction holds the region."""
    dice_one_empty: float
    """Exactly one of them holds it, be it by a single voxel."""
    hd95_one_empty_mm: float
    sensitivity_one_empty: float
    specificity_no_negatives: float
    """The reference fills the whole image, so that no voxel could be found negative."""
    missing_case: RegionScore
    """Nothing was submitted for the case."""


PERFECT = RegionScore(dice=1.0, hd95=0.0, sensitivity=1.0, specificity=1.0)

BRATS_RULES = EmptyRules(
    both_empty=PERFECT,  # CaPTk, BraTSMetrics
    dice_one_empty=0.0,  # as above
    hd95_one_empty_mm=math.hypot(240, 240, 155),  # 373.1287: voxel diagonal of a BraTS image
    sensitivity_one_empty=0.0,  # CaPTk, BraTSMetrics
    specificity_no_negatives=1.0,  # as above
    missing_case=RegionScore(  # FeTS 2022, ranking scripts: 374 is worse than any BraTS score
        dice=0.0, hd95=374.0, sensitivity=0.0, specificity=0.0
    ),
)


def score_region(
    reference: Mask,
    prediction: Mask,
    spacing_mm: SpacingMm,
    *,
    hd95: Hd95,
    rules: EmptyRules = BRATS_RULES,
) -> RegionScore:
    """Score one predicted region.

    Args:
        reference: the true region, axes (z, y, x), the whole image.
        prediction: the predicted region, same shape.
        spacing_mm: voxel size along (z, y, x), above 0.
        hd95: which definition of HD95.
        rules: what empty regions score.

    Returns:
        The four values, all finite; where a region is empty, those of `rules`.
    """
    box = label_box(reference, prediction)
    masks = pack(reference[box]), pack(prediction[box])
    return _score(*masks, spacing_mm, n_image_voxels=reference.size, hd95=hd95, rules=rules)


def score_case(
    reference: LabelMap,
    prediction: LabelMap,
    spacing_mm: SpacingMm,
    task: Task,
    *,
    hd95: Hd95,
    rules: EmptyRules = BRATS_RULES,
) -> dict[str, RegionScore]:
    """Score every region of a case.

    Args:
        reference: true labels, axes (z, y, x), the whole image, values of the task's labels.
        prediction: predicted labels, same shape and values.
        spacing_mm: voxel size along (z, y, x), above 0.
        task: names the regions and their labels.
        hd95: which definition of HD95.
        rules: what empty regions score.

    Returns:
        One score per region, in the task's order.
    """
    box = label_box(reference, prediction)  # no region holds background
    truths, found = _region_bits(reference[box], task), _region_bits(prediction[box], task)
    masks = zip(task.regions, truths, found, strict=True)
    return {
        region: _score(
            true, predicted, spacing_mm, n_image_voxels=reference.size, hd95=hd95, rules=rules
        )
        for region, true, predicted in masks
    }


def _region_bits(labels: LabelMap, task: Task) -> list[Bits]:
    """Return every region of the task as bits, from one mask per label."""
    members = {value for region in task.regions.values() for value in region}
    masks = {value: pack(labels == value) for value in members}
    return [
        reduce(np.bitwise_or, (masks[value] for value in region))
        for region in task.regions.values()
    ]


def _score(
    reference: Bits,
    prediction: Bits,
    spacing_mm: SpacingMm,
    *,
    n_image_voxels: int,
    hd95: Hd95,
    rules: EmptyRules,
) -> RegionScore:
    """Score masks that may be cropped, as long as every true voxel is inside."""
    n_reference, n_prediction = count(reference), count(prediction)
    if n_reference == n_prediction == 0:
        return rules.both_empty
    hits = count(reference & prediction)
    negatives = n_image_voxels - n_reference
    true_negatives = negatives - (n_prediction - hits)
    one_empty = n_reference == 0 or n_prediction == 0
    return RegionScore(
        dice=rules.dice_one_empty if one_empty else 2 * hits / (n_reference + n_prediction),
        hd95=(
            rules.hd95_one_empty_mm
            if one_empty
            else HD95_DEFINITIONS[hd95](bit_distances(reference, prediction, spacing_mm))
        ),
        sensitivity=rules.sensitivity_one_empty if one_empty else hits / n_reference,
        specificity=(true_negatives / negatives if negatives else rules.specificity_no_negatives),
    )
