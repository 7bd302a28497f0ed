"""Ranking by one number per case, the mean Dice over the regions: how KiTS ranks its methods.

Source: KiTS 2019 (Heller et al. 2021): the mean of the Dice of kidney with tumour and the Dice of
    tumour; ties are broken by the tumour's.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Literal

from common.codec import record
from common.errors import ConfigError
from common.evaluation.scores import ScoreTable


@record
class CompositeRanking:
    """The outcome, as in ``ranking.json`` of the scheme "kits". It tells no value of a case."""

    scheme: Literal["kits"] = "kits"
    methods: tuple[str, ...]
    n_cases: int
    composite_dice: dict[str, float]
    """Mean over the cases, of the mean Dice over their regions."""
    tie_breaker: str
    tie_breaker_dice: dict[str, float]
    """Mean over the cases, of the one region that decides between equal ones."""
    final_rank: dict[str, int]


def composite_dice(scores: ScoreTable) -> dict[str, float]:
    """Return the mean Dice over the regions, by case."""
    return {
        case: fmean(score.dice for score in regions.values()) for case, regions in scores.items()
    }


def rank_by_composite(methods: Mapping[str, ScoreTable], tie_breaker: str) -> CompositeRanking:
    """Rank methods by their mean composite Dice over cases, 1 = best.

    Args:
        methods: by name, scores of the same cases and regions.
        tie_breaker: the region whose mean Dice decides between equal ones (KiTS: tumour); methods
            that are equal in it as well share the lower rank.

    Raises:
        ConfigError: when a method lacks a case, or the tie-breaker is no region of all cases.
    """
    cases = set().union(*methods.values())
    for name, table in methods.items():
        if missing := sorted(cases - table.keys()):
            raise ConfigError(f"{name}: expected scores of the same cases, found none of {missing}")
        if not all(tie_breaker in regions for regions in table.values()):
            raise ConfigError(f"{name}: expected a region {tie_breaker} in every case, found none")
    composite = {name: fmean(composite_dice(table).values()) for name, table in methods.items()}
    second = {
        name: fmean(regions[tie_breaker].dice for regions in table.values())
        for name, table in methods.items()
    }
    keys = {name: (composite[name], second[name]) for name in methods}
    return CompositeRanking(
        methods=tuple(methods),
        n_cases=len(cases),
        composite_dice=composite,
        tie_breaker=tie_breaker,
        tie_breaker_dice=second,
        final_rank={
            name: 1 + sum(other > key for other in keys.values()) for name, key in keys.items()
        },
    )
