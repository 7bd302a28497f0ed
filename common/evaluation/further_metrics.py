"""Metrics beside the basic four: offered by name, computed and written only when asked for."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias, get_args

from annotated_types import Ge

from common.codec import record
from common.errors import ConfigError
from common.evaluation.bits import unpack
from common.evaluation.empty_rules import EmptyRules
from common.evaluation.lesion_rules import LESION_RULES, LesionRules, LesionRulesName
from common.evaluation.lesions import score_lesions
from common.evaluation.metrics import RegionPair, volume_difference
from common.evaluation.surfels import surface_dice, weighted_distances

FurtherMetric: TypeAlias = Literal["nsd", "volume_difference", "lesionwise_dice", "lesionwise_hd95"]

BASIC_METRICS = ("dice", "hd95", "sensitivity", "specificity")
"""In every file of scores."""


@record
class FurtherMetrics:
    """Which metrics are wanted beside the basic four, and their parameters. May leave the site."""

    nsd_tolerance_mm: Annotated[float, Ge(0)] | None = None
    """For `nsd`, the normalised surface Dice: how far apart surfaces may lie and still agree."""
    volume_difference: bool = False
    """|prediction - reference| / reference."""
    lesion_wise: LesionRules | None = None
    """For `lesionwise_dice` and `lesionwise_hd95`: one of `lesions.LESION_RULES`."""

    @property
    def names(self) -> tuple[FurtherMetric, ...]:
        """What is computed, in the order of the columns."""
        wanted: dict[FurtherMetric, bool] = {
            "nsd": self.nsd_tolerance_mm is not None,
            "volume_difference": self.volume_difference,
            "lesionwise_dice": self.lesion_wise is not None,
            "lesionwise_hd95": self.lesion_wise is not None,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)


BASIC_ONLY = FurtherMetrics()


def wanted_metrics(
    names: Sequence[str],
    nsd_tolerance_mm: float | None = None,
    lesion_rules: LesionRulesName | None = None,
) -> FurtherMetrics:
    """Return the metrics that are wanted, by their names; the basic four may be among them.

    Raises:
        ConfigError: for an unknown name, and for `nsd` without its tolerance.
    """
    known = (*BASIC_METRICS, *get_args(FurtherMetric))
    if unknown := sorted(set(names) - set(known)):
        raise ConfigError(f"metrics: expected some of {', '.join(known)}, found {unknown[0]!r}")
    if "nsd" in names and nsd_tolerance_mm is None:
        raise ConfigError("metrics: nsd: expected a tolerance in mm, found none")
    lesion_wise = any(name.startswith("lesionwise") for name in names)
    rules_name = lesion_rules or ("glioma" if lesion_wise else None)
    return FurtherMetrics(
        nsd_tolerance_mm=nsd_tolerance_mm if "nsd" in names else None,
        volume_difference="volume_difference" in names,
        lesion_wise=LESION_RULES[rules_name] if rules_name else None,
    )


def further_scores(
    pair: RegionPair, wanted: FurtherMetrics, rules: EmptyRules
) -> dict[FurtherMetric, float]:
    """Return what is wanted of one region of one case, all finite, in the order of the columns."""
    found: dict[FurtherMetric, float] = {}
    if wanted.nsd_tolerance_mm is not None:
        found["nsd"] = _surface_dice(pair, wanted.nsd_tolerance_mm, rules)
    if wanted.volume_difference:
        found["volume_difference"] = volume_difference(pair, rules)
    if wanted.lesion_wise:
        masks = unpack(pair.reference), unpack(pair.prediction)
        lesions = score_lesions(*masks, pair.spacing_mm, wanted.lesion_wise)
        found |= {"lesionwise_dice": lesions.dice, "lesionwise_hd95": lesions.hd95}
    return found


def further_scores_of_missing(
    wanted: FurtherMetrics, rules: EmptyRules
) -> dict[FurtherMetric, float]:
    """Return what a region scores when nothing usable was submitted for its case."""
    worst: dict[FurtherMetric, float] = {
        "nsd": rules.surface_dice_one_empty,
        "volume_difference": rules.volume_difference_one_empty,
        "lesionwise_dice": 0.0,
        "lesionwise_hd95": wanted.lesion_wise.penalty_hd95_mm if wanted.lesion_wise else 0.0,
    }
    return {name: worst[name] for name in wanted.names}


def _surface_dice(pair: RegionPair, tolerance_mm: float, rules: EmptyRules) -> float:
    if pair.n_reference == pair.n_prediction == 0:
        return rules.both_empty.dice  # of surfaces as of volumes
    if pair.n_reference == 0 or pair.n_prediction == 0:
        return rules.surface_dice_one_empty
    masks = unpack(pair.reference), unpack(pair.prediction)
    return surface_dice(weighted_distances(*masks, pair.spacing_mm), tolerance_mm)
