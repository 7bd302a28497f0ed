"""Ranking by one number per case, the mean Dice over the regions: how KiTS ranks its methods.

Source: KiTS 2019 (Heller et al. 2021): the mean of the Dice of kidney with tumour and the Dice of
    tumour; ties are broken by the tumour's.
"""

from collections.abc import Mapping
from statistics import fmean

from common.errors import ConfigError
from common.evaluation.scores import ScoreTable


def composite_dice(scores: ScoreTable) -> dict[str, float]:
    """Return the mean Dice over the regions, by case."""
    return {
        case: fmean(score.dice for score in regions.values()) for case, regions in scores.items()
    }


def composite_ranks(methods: Mapping[str, ScoreTable], tie_breaker: str) -> dict[str, int]:
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
    keys = {
        name: (
            fmean(composite_dice(table).values()),
            fmean(regions[tie_breaker].dice for regions in table.values()),
        )
        for name, table in methods.items()
    }
    return {name: 1 + sum(other > key for other in keys.values()) for name, key in keys.items()}
