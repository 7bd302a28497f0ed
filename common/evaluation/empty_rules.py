"""What a region scores where a formula has no answer: one set of rules per challenge, as data.

No library follows such rules by itself (they raise, return NaN, or return a perfect 0), so they
stand here once, and everything asks them. Three numbers for the same failure are in use, 373.13,
374 and 1000 mm: every file of scores names the rules that it was made with.

Sources:
    brats-2017, brats-2021: CaPTk, BraTSMetrics, which scored BraTS 2017 to 2021, and the evaluation
        code of the BraTS 2020 winner; for cases without a usable submission the challenge's own
        scoring script and the ranking scripts of FeTS 2022.
    brats-2023: the lesion-wise scripts of BraTS 2023 and later, columns "Legacy".
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Le

from common.codec import record

RulesName: TypeAlias = Literal["brats-2017", "brats-2021", "brats-2023"]
Share = Annotated[float, Ge(0), Le(1)]


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

    name: RulesName
    both_empty: RegionScore
    """Neither the reference nor the prediction holds the region."""
    dice_one_empty: Share
    """Exactly one of them holds it, be it by a single voxel."""
    hd95_one_empty_mm: float
    sensitivity_one_empty: Share
    specificity_no_negatives: Share
    """The reference fills the whole image, so that no voxel could be found negative."""
    surface_dice_one_empty: Share
    volume_difference_one_empty: float
    """A fraction; the formula divides by 0 where the reference is empty."""
    missing_case: RegionScore
    """Nothing usable was submitted for the case."""


PERFECT = RegionScore(dice=1.0, hd95=0.0, sensitivity=1.0, specificity=1.0)

BRATS_RULES = EmptyRules(
    name="brats-2021",
    both_empty=PERFECT,  # CaPTk, BraTSMetrics
    dice_one_empty=0.0,  # as above
    hd95_one_empty_mm=math.hypot(240, 240, 155),  # 373.1287: voxel diagonal of a BraTS image
    sensitivity_one_empty=0.0,  # CaPTk, BraTSMetrics
    specificity_no_negatives=1.0,  # as above
    surface_dice_one_empty=0.0,  # Nikolov et al. 2018: no part of the one surface is near the other
    volume_difference_one_empty=1.0,  # ours: a false alarm costs what a miss costs, as in Dice
    missing_case=RegionScore(  # BraTS scoring script, FeTS 2022: 374, worse than any BraTS score
        dice=0.0, hd95=374.0, sensitivity=0.0, specificity=0.0
    ),
)

RULES: Mapping[RulesName, EmptyRules] = {
    "brats-2017": replace(BRATS_RULES, name="brats-2017"),  # to 2020: nothing of it changed in 2021
    "brats-2021": BRATS_RULES,
    "brats-2023": replace(
        BRATS_RULES,
        name="brats-2023",
        hd95_one_empty_mm=374.0,  # infinity is replaced by 374
        specificity_no_negatives=0.0,  # TN / (TN + FP + smallest float)
    ),
}
"""By the first year in which the rules were used."""
