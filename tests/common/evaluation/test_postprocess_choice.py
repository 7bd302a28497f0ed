"""Choosing post-processing from sums: their laws, and what is kept."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import canonical_json, decode
from common.errors import ConfigError, MessageError
from common.evaluation.metrics import RegionScore
from common.evaluation.postprocess import Chain, KeepLargest, ReplaceScarce
from common.evaluation.postprocess_choice import (
    ValidationSums,
    choose,
    extended,
    merged,
    no_cases,
    rank_sums,
    sums_of_case,
)
from common.task import load_task

BRATS = load_task("brats-2021")
FEW, MORE = (ReplaceScarce(label=4, below_voxels=n, replacement=1) for n in (200, 500))
LARGEST = KeepLargest(labels=(1, 2, 4))
CANDIDATES: tuple[Chain, ...] = ((), (FEW,), (MORE,), (LARGEST,))
regions = st.fixed_dictionaries(
    {
        name: st.builds(
            RegionScore,
            dice=st.sampled_from([0.0, 0.1, 1 / 3, 0.7, 1.0]),
            hd95=st.sampled_from([0.0, 1.0, 2.5, 373.13]),
            sensitivity=st.just(1.0),
            specificity=st.just(1.0),
        )
        for name in ("WT", "TC", "ET")
    }
)
cases = st.builds(
    lambda scores, changed: sums_of_case(CANDIDATES, scores, [False, *changed]),
    st.lists(regions, min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=3, max_size=3),
)
many = st.lists(cases, max_size=5)


def total(parts: list[ValidationSums]) -> ValidationSums:
    found = no_cases(CANDIDATES, BRATS)
    for part in parts:
        found = merged(found, part)
    return found


def case(*enhancing: tuple[float, float], core: tuple[float, ...] = (0.8,) * 4) -> ValidationSums:
    """Return a case in which candidates differ by (Dice, HD95) of ET, and by Dice of TC."""
    scores = [
        {
            "WT": RegionScore(0.9, 2.0, 1.0, 1.0),
            "TC": RegionScore(tc, 3.0, 1.0, 1.0),
            "ET": RegionScore(*et, 1.0, 1.0),
        }
        for et, tc in zip(enhancing, core, strict=True)
    ]
    return sums_of_case(CANDIDATES, scores, [et != enhancing[0] for et in enhancing])


@given(cases)
def test_no_cases_add_nothing(one: ValidationSums) -> None:
    assert merged(no_cases(CANDIDATES, BRATS), one) == one


@given(many, many, many)
def test_sums_can_be_added_in_any_order_and_grouping(
    a: list[ValidationSums], b: list[ValidationSums], c: list[ValidationSums]
) -> None:
    first, second, third = total(a), total(b), total(c)
    assert merged(first, second) == merged(second, first)
    assert merged(merged(first, second), third) == merged(first, merged(second, third))
    assert merged(first, merged(second, third)) == total([*c, *a, *b])


@given(many)
def test_rank_sums_are_those_of_the_cases_ranked_one_by_one(found: list[ValidationSums]) -> None:
    ranks = rank_sums(total(found), range(4))
    alone = [rank_sums(one, range(4)) for one in found]
    assert ranks == {place: sum(one[place] for one in alone) for place in range(4)}
    assert all(len(found) * 6 <= value <= len(found) * 24 for value in ranks.values())


def test_equal_scores_share_the_lower_rank() -> None:
    # WT and TC: all equal, rank 1 in four metrics. ET: Dice 1 3 2 3, HD95 2 1 2 4.
    one = case((0.9, 3.0), (0.1, 2.0), (0.5, 3.0), (0.1, 4.0))
    assert rank_sums(one, range(4)) == {0: 4 + 1 + 2, 1: 4 + 3 + 1, 2: 4 + 2 + 2, 3: 4 + 3 + 4}
    assert rank_sums(one, [1, 3]) == {1: 4 + 1 + 1, 3: 4 + 1 + 2}  # ranked among themselves


def test_a_site_says_nothing_of_a_single_case_but_its_part_of_the_sums() -> None:
    plain = json.loads(canonical_json(total([case(*[(0.5, 3.0)] * 4)] * 3)))
    assert set(plain) == {"candidates", "n_cases", "n_changed", "dice_units", "n_better"}
    assert plain["n_cases"] == 3
    assert plain["dice_units"][0] == {"WT": 27 * 10**11, "TC": 24 * 10**11, "ET": 15 * 10**11}


def test_nothing_is_kept_when_nothing_helps() -> None:
    same = total([case(*[(0.5, 3.0)] * 4)] * 5)
    choice = choose(same, BRATS)
    assert choice.chain == ()
    assert choice.reason == ("none of 3 candidates helps on 5 validation cases; nothing is applied")


def test_what_helps_by_mean_dice_and_by_ranking_is_kept_and_described() -> None:
    without = case((0.0, 373.0), (1.0, 0.0), (0.0, 373.0), (0.0, 373.0))
    with_ = case(*[(0.75, 2.0)] * 4)
    choice = choose(total([without, with_, with_, with_]), BRATS)
    assert choice.chain == (FEW,)
    assert choice.reason == (
        "enhancing of fewer than 200 voxels becomes necrosis: changes 1 of 4 validation cases, "
        "mean Dice ET 0.5625 to 0.8125; chosen by mean Dice and by ranking"
    )


def test_the_better_of_two_optima_is_the_one_that_ranks_better_beside_the_other() -> None:
    # 500 voxels: a whole Dice in one case, a little worse in two. 200 voxels: better in those two.
    rescued = case((0.0, 373.0), (0.0, 373.0), (1.0, 0.0), (0.0, 373.0))
    harmed = case((0.7, 3.0), (0.75, 2.0), (0.69, 4.0), (0.7, 3.0))
    choice = choose(total([rescued, harmed, harmed]), BRATS)
    assert choice.chain == (FEW,)
    assert choice.reason.endswith("chosen by ranking")
    choice = choose(total([rescued, rescued, rescued, harmed]), BRATS)
    assert choice.chain == (MORE,)
    assert choice.reason.endswith("chosen by mean Dice and by ranking")


def test_a_component_step_is_not_kept_when_the_mean_dice_of_any_region_falls() -> None:
    enhancing = ((0.5, 9.0), (0.5, 9.0), (0.5, 9.0), (0.9, 1.0))
    helps = case(*enhancing)
    assert choose(total([helps] * 3), BRATS).chain == (LARGEST,)
    costs = case(*enhancing, core=(0.8, 0.8, 0.8, 0.79))
    assert choose(total([costs] * 3), BRATS).chain == ()


def test_a_search_goes_on_from_what_is_applied_so_far() -> None:
    assert extended((FEW,), [FEW, MORE, LARGEST]) == ((FEW,), (FEW, LARGEST))
    candidates = extended((FEW,), [FEW, MORE, LARGEST])
    nothing = no_cases(candidates, BRATS)
    assert choose(nothing, BRATS).chain == (FEW,)
    assert "what is applied so far stays" in choose(nothing, BRATS).reason


def test_sums_of_other_candidates_are_not_added() -> None:
    with pytest.raises(MessageError, match="expected the same candidates and regions"):
        merged(no_cases(CANDIDATES, BRATS), no_cases(((), (FEW,)), BRATS))
    with pytest.raises(MessageError):
        merged(no_cases(CANDIDATES, BRATS), no_cases(CANDIDATES, load_task("hippocampus")))


@given(many)
def test_sums_arrive_as_they_were_sent(parts: list[ValidationSums]) -> None:
    sums = total(parts)
    assert decode(ValidationSums, json.loads(canonical_json(sums)), source="sums") == sums


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("n_changed", [0, 0, 0], "expected sums of 4 candidates"),
        ("n_better", [[0] * 4] * 3, "expected sums of 4 candidates"),
        ("n_changed", [0, 2, 0, 0], "expected sums over 1 cases, found larger ones"),
        ("n_better", [[7] * 4] * 4, "expected sums over 1 cases, found larger ones"),
        ("dice_units", [{"WT": 10**13, "TC": 0, "ET": 0}] * 4, "found larger ones"),
        ("dice_units", [{"WT": 0}, {"TC": 0}, {"WT": 0}, {"WT": 0}], "the same regions"),
        ("n_cases", -1, "n_cases"),
    ],
)
def test_sums_that_cannot_be_are_refused(field: str, value: object, complaint: str) -> None:
    plain = json.loads(canonical_json(case(*[(0.5, 3.0)] * 4)))
    with pytest.raises(ConfigError, match=complaint):
        decode(ValidationSums, {**plain, field: value}, source="sums")
