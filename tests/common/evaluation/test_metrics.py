"""Scores of drawn regions, the rules for empty regions, and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import LabelMap, Mask
from common.codec import decode, encode
from common.evaluation.empty_rules import RULES
from common.evaluation.metrics import (
    BRATS_RULES,
    EmptyRules,
    RegionPair,
    RegionScore,
    region_pairs,
    score_case,
    score_region,
    volume_difference,
)
from common.task import load_task

UNIT = (1.0, 1.0, 1.0)
DIAGONAL_MM = 373.12866413  # sqrt(240^2 + 240^2 + 155^2); printed as 373.1287
SHAPE = (2, 3, 4)
masks = arrays(np.bool_, SHAPE)
label_maps = arrays(np.uint8, (2, 3, 3), elements=st.sampled_from([0, 1, 2, 4]))


def line(text: str) -> Mask:
    """Return a mask of one row: '#' is inside."""
    return np.array([[[letter == "#" for letter in text]]])


def test_a_half_overlap_gives_the_textbook_values() -> None:
    #  reference   ####....   TP 2, FN 2
    #  prediction  ..###...   FP 1, TN 3
    score = score_region(line("####...."), line("..###..."), UNIT, hd95="pooled")
    assert score.dice == pytest.approx(4 / 7, abs=1e-15)
    assert score.sensitivity == 0.5
    assert score.specificity == 0.75
    # distances 2 1 0 0 | 0 0 1: sorted 0 0 0 0 1 1 2, place 5.7: 1 + 0.7
    assert score.hd95 == pytest.approx(1.7, abs=1e-12)


def test_the_definition_of_hd95_is_chosen_by_name() -> None:
    # directed: 2 1 0 0: place 2.85: 1.85;  0 0 1: place 1.9: 0.9
    score = score_region(line("####...."), line("..###..."), UNIT, hd95="max")
    assert score.hd95 == pytest.approx(1.85, abs=1e-12)


def test_both_empty_is_perfect() -> None:
    score = score_region(line("...."), line("...."), UNIT, hd95="pooled")
    assert score == RegionScore(dice=1.0, hd95=0.0, sensitivity=1.0, specificity=1.0)


def test_one_false_voxel_costs_everything_but_specificity() -> None:
    score = score_region(line("...."), line("..#."), UNIT, hd95="pooled")
    assert (score.dice, score.sensitivity, score.specificity) == (0.0, 0.0, 0.75)
    assert score.hd95 == pytest.approx(DIAGONAL_MM, abs=1e-8)


def test_a_missed_region_scores_nothing_but_specificity() -> None:
    score = score_region(line("##.."), line("...."), UNIT, hd95="max")
    assert (score.dice, score.sensitivity, score.specificity) == (0.0, 0.0, 1.0)
    assert score.hd95 == pytest.approx(DIAGONAL_MM, abs=1e-8)


def test_a_reference_that_fills_the_image_leaves_specificity_at_one() -> None:
    score = score_region(line("####"), line("##.."), UNIT, hd95="pooled")
    assert (score.sensitivity, score.specificity) == (0.5, 1.0)


def test_a_case_without_submission_has_its_own_numbers() -> None:
    missing = RegionScore(dice=0.0, hd95=374.0, sensitivity=0.0, specificity=0.0)
    assert BRATS_RULES.missing_case == missing


def test_the_rules_are_data_that_can_be_exchanged() -> None:
    rules = decode(EmptyRules, {**encode(BRATS_RULES), "hd95_one_empty_mm": 1000.0}, source="test")
    assert score_region(line("#."), line(".."), UNIT, hd95="pooled", rules=rules).hd95 == 1000.0


@pytest.mark.parametrize(
    ("name", "hd95_one_empty_mm", "specificity_no_negatives"),
    [("brats-2017", DIAGONAL_MM, 1.0), ("brats-2021", DIAGONAL_MM, 1.0), ("brats-2023", 374, 0)],
)
def test_every_challenge_has_its_own_numbers_for_empty_regions(
    name: str, hd95_one_empty_mm: float, specificity_no_negatives: float
) -> None:
    rules = RULES[name]  # type: ignore[index]
    assert rules.name == name
    missed = score_region(line("##."), line("..."), UNIT, hd95="pooled", rules=rules)
    assert (missed.dice, missed.sensitivity, missed.specificity) == (0.0, 0.0, 1.0)
    assert missed.hd95 == pytest.approx(hd95_one_empty_mm, abs=1e-8)
    filled = score_region(line("###"), line("##."), UNIT, hd95="pooled", rules=rules)
    assert filled.specificity == specificity_no_negatives
    nothing = score_region(line("..."), line("..."), UNIT, hd95="pooled", rules=rules)
    assert nothing == RegionScore(1.0, 0.0, 1.0, 1.0)
    assert rules.missing_case == RegionScore(0.0, 374.0, 0.0, 0.0)


def pair(reference: str, prediction: str) -> RegionPair:
    """Return the region of a drawn row, of label 1 in a task of one region."""
    labels = [line(text).astype(np.uint8) for text in (reference, prediction)]
    return region_pairs(*labels, (1.0, 2.0, 3.0), load_task("hippocampus"))["anterior"]


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("####....", "...#####", 0.25),
        ("####....", "#.......", 0.75),
        ("#.......", "#######.", 6.0),
        ("........", "........", 0.0),
        ("........", "#.......", 1.0),  # by rule: the formula divides by 0
        ("####....", "........", 1.0),
    ],
)
def test_the_volume_difference_is_relative_to_the_reference(
    reference: str, prediction: str, expected: float
) -> None:
    assert volume_difference(pair(reference, prediction)) == expected


def test_a_pair_knows_its_volumes() -> None:
    found = pair("####....", "...#####")
    assert (found.n_reference, found.n_prediction, found.voxel_mm3) == (4, 5, 6.0)


def test_regions_of_a_case_are_scored_apart_and_over_the_whole_image() -> None:
    #  x           0 1 2 3 4 5 6 7
    #  reference   . 2 2 1 4 . . .    WT 1-4, TC 3-4, ET 4
    #  prediction  . 2 2 1 1 . . .    WT 1-4, TC 3-4, ET nowhere
    reference = np.array([[[0, 2, 2, 1, 4, 0, 0, 0]]], np.uint8)
    prediction = np.array([[[0, 2, 2, 1, 1, 0, 0, 0]]], np.uint8)
    task = load_task("brats-2021")
    scores = score_case(reference, prediction, UNIT, task, hd95="pooled")
    assert list(scores) == ["WT", "TC", "ET"]
    assert scores["WT"] == scores["TC"] == RegionScore(1.0, 0.0, 1.0, 1.0)
    assert (scores["ET"].dice, scores["ET"].sensitivity, scores["ET"].specificity) == (0, 0, 1)


def test_specificity_counts_the_image_and_not_the_crop() -> None:
    reference = np.zeros((10, 10, 10), np.uint8)
    prediction = reference.copy()
    reference[4, 4, 4] = prediction[4, 4, 4] = prediction[4, 4, 5] = 2
    scores = score_case(reference, prediction, UNIT, load_task("brats-2021"), hd95="pooled")
    assert scores["WT"].specificity == pytest.approx(998 / 999, abs=1e-15)


def test_a_case_without_any_tumour_is_perfect() -> None:
    nothing = np.zeros((4, 4, 4), np.uint8)
    scores = score_case(nothing, nothing, UNIT, load_task("brats-2021"), hd95="pooled")
    assert scores["ET"] == RegionScore(1.0, 0.0, 1.0, 1.0)


@given(label_maps, label_maps)
def test_a_case_scores_as_its_regions_do_on_the_full_image(
    reference: LabelMap, prediction: LabelMap
) -> None:
    scores = score_case(reference, prediction, UNIT, load_task("brats-2021"), hd95="pooled")
    for region, members in {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}.items():
        true, predicted = np.isin(reference, members), np.isin(prediction, members)
        assert scores[region] == score_region(true, predicted, UNIT, hd95="pooled")


@given(masks, masks)
def test_dice_and_hd95_do_not_mind_which_mask_is_the_reference(a: Mask, b: Mask) -> None:
    there = score_region(a, b, (3.0, 1.0, 0.5), hd95="pooled")
    back = score_region(b, a, (3.0, 1.0, 0.5), hd95="pooled")
    assert there.dice == back.dice
    assert there.hd95 == pytest.approx(back.hd95, abs=1e-12)


@given(masks, masks)
def test_fractions_lie_between_zero_and_one_and_nothing_is_nan(a: Mask, b: Mask) -> None:
    score = score_region(a, b, UNIT, hd95="max")
    assert all(0 <= value <= 1 for value in (score.dice, score.sensitivity, score.specificity))
    assert 0 <= score.hd95 < 374


@given(masks.filter(np.any))
def test_a_region_matches_itself_perfectly(mask: Mask) -> None:
    score = score_region(mask, mask.copy(), UNIT, hd95="pooled")
    assert score == RegionScore(1.0, 0.0, 1.0, 1.0)
