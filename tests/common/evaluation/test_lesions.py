"""Lesion-wise scores of drawn lesions; the numbers of the published script are in tests/golden."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Mask
from common.evaluation.lesion_rules import LESION_RULES, LesionRules
from common.evaluation.lesions import LesionScore, score_lesions

UNIT = (1.0, 1.0, 1.0)
METASTASES = LESION_RULES["metastases"]  # one dilation, lesions above 2 mm3 count
masks = arrays(np.bool_, (2, 4, 12), elements=st.booleans(), fill=st.just(value=False))


def line(text: str) -> Mask:
    """Return a mask of one row: '#' is inside."""
    return np.array([[[letter == "#" for letter in text]]])


def score(reference: str, prediction: str, rules: LesionRules = METASTASES) -> LesionScore:
    return score_lesions(line(reference), line(prediction), UNIT, rules)


def test_a_lesion_that_was_found_counts_as_much_as_a_larger_one_that_was_missed() -> None:
    found = score("###......########", "###..............")
    assert found == LesionScore(dice=0.5, hd95=187.0, n_found=1, n_missed=1, n_false=0)


def test_a_false_lesion_costs_as_much_as_a_missed_one() -> None:
    found = score("###..............", "###......########")
    assert found == LesionScore(dice=0.5, hd95=187.0, n_found=1, n_missed=0, n_false=1)


def test_lesions_that_touch_after_dilation_are_one() -> None:
    # Three voxels apart: with one dilation two lesions, with three one.
    two = score("####...####", "####.......")
    assert (two.n_found, two.n_missed) == (1, 1)
    wider = LesionRules(name="glioma", dilations=3, dropped_mm3=2)
    one = score("####...####", "####.......", wider)
    assert (one.n_found, one.n_missed) == (1, 0)
    assert one.dice == pytest.approx(2 * 4 / (8 + 4))


def test_a_prediction_beside_a_lesion_is_its_match_and_no_false_lesion() -> None:
    found = score("####.......", "....###....")
    assert (found.dice, found.n_found, found.n_false) == (0.0, 1, 0)
    assert found.hd95 < 10  # measured, not the penalty


def test_a_prediction_can_match_two_lesions() -> None:
    found = score("####...####", "###########")
    assert (found.n_found, found.n_false) == (2, 0)
    assert found.dice == pytest.approx(2 * 4 / (4 + 11))


def test_a_small_lesion_counts_neither_as_found_nor_as_missed() -> None:
    assert score("##......####", "........####").dice == 1.0
    assert score("##......####", "##......####").n_found == 1
    assert score("##..........", "##..........") == LesionScore(1.0, 0.0, 0, 0, 0)


def test_the_volume_and_not_the_number_of_voxels_makes_a_lesion_small() -> None:
    masks_ = line("##...."), line("......")
    assert score_lesions(*masks_, (1.0, 1.0, 1.0), METASTASES).n_missed == 0
    assert score_lesions(*masks_, (1.0, 1.0, 1.5), METASTASES).n_missed == 1


def test_no_lesion_anywhere_is_perfect() -> None:
    assert score("......", "......") == LesionScore(1.0, 0.0, 0, 0, 0)


def test_diagonal_neighbours_are_one_component() -> None:
    prediction = np.zeros((3, 3, 9), np.bool_)
    prediction[0, 0, 6] = prediction[1, 1, 7] = prediction[2, 2, 8] = True
    nothing = np.zeros_like(prediction)
    assert score_lesions(nothing, prediction, UNIT, METASTASES).n_false == 1


@pytest.mark.parametrize(
    ("name", "dilations", "dropped_mm3"),
    [
        ("glioma", 3, 50),
        ("sub-saharan", 3, 50),
        ("paediatric", 3, 50),
        ("meningioma", 1, 50),
        ("metastases", 1, 2),
    ],
)
def test_the_challenges_have_their_published_parameters(
    name: str, dilations: int, dropped_mm3: float
) -> None:
    rules = LESION_RULES[name]  # type: ignore[index]
    assert (rules.dilations, rules.dropped_mm3) == (dilations, dropped_mm3)
    assert rules.penalty_hd95_mm == 374.0


@given(masks)
def test_a_region_matches_itself_lesion_by_lesion(mask: Mask) -> None:
    found = score_lesions(mask, mask.copy(), UNIT, METASTASES)
    assert (found.n_missed, found.n_false) == (0, 0)
    assert 0 < found.dice <= 1  # a component near two lesions is compared with each


@given(masks, masks)
def test_values_stay_in_their_range_and_do_not_change_with_the_margin(a: Mask, b: Mask) -> None:
    found = score_lesions(a, b, UNIT, METASTASES)
    assert 0 <= found.dice <= 1
    assert 0 <= found.hd95 <= 374
    margin = [np.pad(mask, 5) for mask in (a, b)]
    assert score_lesions(*margin, UNIT, METASTASES) == found
