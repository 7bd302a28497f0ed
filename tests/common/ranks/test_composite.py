"""Ranking by composite Dice, on the KiTS task."""

import pytest

from common.errors import ConfigError
from common.evaluation.metrics import RegionScore
from common.evaluation.scores import ScoreTable
from common.ranks.composite import composite_dice, rank_by_composite
from common.task import load_task


def table(*dice: tuple[float, float]) -> ScoreTable:
    """Return scores of cases a, b, ... from (kidney, tumour) Dice."""
    return {
        name: {
            "kidney": RegionScore(kidney, 1.0, 1.0, 1.0),
            "tumour": RegionScore(tumour, 1.0, 1.0, 1.0),
        }
        for name, (kidney, tumour) in zip("abcdef", dice, strict=False)
    }


def test_the_kidney_is_scored_with_its_tumour_inside() -> None:
    assert load_task("kits-2019").regions == {"kidney": (1, 2), "tumour": (2,)}


def test_composite_dice_is_the_mean_of_kidney_and_tumour() -> None:
    # KiTS 2019 winner, residual U-Net: kidney .9736, tumour .8573: composite .91545
    assert composite_dice(table((0.9736, 0.8573))) == {"a": pytest.approx(0.91545)}


def test_the_tumour_breaks_ties() -> None:
    methods = {
        "kidney": table((1.0, 0.5), (1.0, 0.5)),
        "tumour": table((0.75, 0.75), (0.75, 0.75)),
        "best": table((1.0, 0.75), (1.0, 0.75)),
        "as tumour": table((0.75, 0.75), (0.75, 0.75)),
    }
    ranks = rank_by_composite(methods, "tumour").final_rank
    assert ranks == {"best": 1, "tumour": 2, "as tumour": 2, "kidney": 4}


def test_methods_of_different_cases_are_not_compared() -> None:
    with pytest.raises(ConfigError, match=r"b: expected scores of the same cases"):
        rank_by_composite({"a": table((1, 1), (1, 1)), "b": table((1, 1))}, "tumour")


def test_a_tie_breaker_must_be_a_region() -> None:
    with pytest.raises(ConfigError, match="expected a region cyst"):
        rank_by_composite({"a": table((1, 1))}, "cyst")
