"""Dice, HD95, sensitivity, specificity and volume difference of a region.

Other metrics of a region: `surfels.py` (normalised surface Dice), `lesions.py`
(lesion-wise). What empty regions score is data: `common.evaluation.empty_rules`.

Sources:
    Dice, sensitivity, specificity: CaPTk, BraTSMetrics.
    HD95: see `common.evaluation.surface`.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod

import numpy as np

from common.axes import LabelMap, Mask, SpacingMm
from common.evaluation.bits import Bits, count, pack
from common.evaluation.empty_rules import BRATS_RULES, EmptyRules, RegionScore
from common.evaluation.surface import HD95_DEFINITIONS, Hd95, bit_distances, label_box
from common.task import Task

__all__ = [
    "BRATS_RULES",
    "EmptyRules",
    "RegionPair",
    "RegionScore",
    "region_pairs",
    "score_case",
    "score_pair",
    "score_region",
    "volume_difference",
]


@dataclass(frozen=True)
class RegionPair:
    """One region of one case, true and predicted: what all its metrics are computed from."""

    reference: Bits
    """May be cropped, as long as every true voxel of either mask is inside."""
    prediction: Bits
    """Same shape as `reference`."""
    spacing_mm: SpacingMm
    n_image_voxels: int
    """Of the whole image."""

    @cached_property
    def n_reference(self) -> int:
        """Voxels of the reference."""
        return count(self.reference)

    @cached_property
    def n_prediction(self) -> int:
        """Voxels of the prediction."""
        return count(self.prediction)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel."""
        return prod(self.spacing_mm)


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
    return score_pair(RegionPair(*masks, spacing_mm, reference.size), hd95=hd95, rules=rules)


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
    pairs = region_pairs(reference, prediction, spacing_mm, task)
    return {region: score_pair(pair, hd95=hd95, rules=rules) for region, pair in pairs.items()}


def region_pairs(
    reference: LabelMap, prediction: LabelMap, spacing_mm: SpacingMm, task: Task
) -> dict[str, RegionPair]:
    """Return every region of a case, in the task's order; arguments as for `score_case`."""
    box = label_box(reference, prediction)  # no region holds background
    truths, found = _region_bits(reference[box], task), _region_bits(prediction[box], task)
    return {
        region: RegionPair(true, predicted, spacing_mm, reference.size)
        for region, true, predicted in zip(task.regions, truths, found, strict=True)
    }


def score_pair(pair: RegionPair, *, hd95: Hd95, rules: EmptyRules) -> RegionScore:
    """Return the four values of one region, all finite."""
    if pair.n_reference == pair.n_prediction == 0:
        return rules.both_empty
    hits = count(pair.reference & pair.prediction)
    negatives = pair.n_image_voxels - pair.n_reference
    true_negatives = negatives - (pair.n_prediction - hits)
    specificity = true_negatives / negatives if negatives else rules.specificity_no_negatives
    if pair.n_reference == 0 or pair.n_prediction == 0:
        return RegionScore(
            dice=rules.dice_one_empty,
            hd95=rules.hd95_one_empty_mm,
            sensitivity=rules.sensitivity_one_empty,
            specificity=specificity,
        )
    distances = bit_distances(pair.reference, pair.prediction, pair.spacing_mm)
    return RegionScore(
        dice=2 * hits / (pair.n_reference + pair.n_prediction),
        hd95=HD95_DEFINITIONS[hd95](distances),
        sensitivity=hits / pair.n_reference,
        specificity=specificity,
    )


def volume_difference(pair: RegionPair, rules: EmptyRules = BRATS_RULES) -> float:
    """Return the volume by which prediction and reference differ, as a fraction of the reference.

    Source: "absolute volume difference" of MRBrainS (Mendrik et al. 2015) and of the WMH challenge
        (Kuijf et al. 2019), there in percent.
    """
    if pair.n_reference == pair.n_prediction:  # also where both are empty
        return 0.0
    if pair.n_reference == 0 or pair.n_prediction == 0:
        return rules.volume_difference_one_empty
    return abs(pair.n_prediction - pair.n_reference) / pair.n_reference


def _region_bits(labels: LabelMap, task: Task) -> list[Bits]:
    """Return every region of the task as bits, from one mask per label."""
    members = {value for region in task.regions.values() for value in region}
    masks = {value: pack(labels == value) for value in members}
    return [
        reduce(np.bitwise_or, (masks[value] for value in region))
        for region in task.regions.values()
    ]
