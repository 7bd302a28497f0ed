"""Steps after the network, drawn on one row of voxels: 2 oedema, 1 necrosis, 4 enhancing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import LabelMap
from common.codec import canonical_json, decode
from common.evaluation.postprocess import (
    Chain,
    FillHoles,
    KeepLargest,
    RemoveSmall,
    ReplaceScarce,
    Step,
    in_words,
    post_processed,
    steps_for,
)
from common.task import load_task

UNIT = (1.0, 1.0, 1.0)
BRATS = load_task("brats-2021")
STEPS = steps_for(BRATS)
label_maps = arrays(np.uint8, (3, 4, 6), elements=st.sampled_from([0, 0, 1, 2, 4]))


def line(text: str) -> LabelMap:
    return np.array([[[int(letter) for letter in text.replace(".", "0")]]], np.uint8)


def after(text: str, *steps: Step, voxel_mm3: float = 1.0) -> str:
    found = post_processed(line(text), steps, (1.0, 1.0, voxel_mm3))
    return "".join(map(str, found.ravel())).replace("0", ".")


def test_scarce_enhancing_tumour_becomes_necrosis_and_stays_in_core_and_whole_tumour() -> None:
    step = ReplaceScarce(label=4, below_voxels=3, replacement=1)
    assert after("2144122", step) == "2111122"
    assert after("2144412", step) == "2144412"  # three are not fewer than three


def test_the_volumes_of_a_case_are_counted_and_not_those_of_its_components() -> None:
    step = ReplaceScarce(label=4, below_voxels=3, replacement=1)
    assert after("44.....44", step) == "44.....44"


def test_the_decision_rule_asks_for_two_volumes() -> None:
    # Isensee et al. 2020: drop ET if ET <= 129.5 and NCR > 16954, here in small
    step = ReplaceScarce(label=4, below_voxels=2.5, replacement=1, beside=1, beside_above_voxels=3)
    assert after("1111442", step) == "1111112"
    assert after("1112442", step) == "1112442"  # necrosis: three are not more than three
    assert after("1111444", step) == "1111444"


def test_only_the_largest_component_stays() -> None:
    assert after("22.144.4.", KeepLargest(labels=(1, 2, 4))) == "...144..."
    assert after("44.144444.", KeepLargest(labels=(4,))) == "...144444."


def test_of_equally_large_components_all_stay() -> None:
    assert after("22.11.4", KeepLargest(labels=(1, 2, 4))) == "22.11.."


def test_components_touch_at_corners() -> None:
    labels = np.zeros((2, 2, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 2
    labels[0, 0, 3] = 2
    kept = post_processed(labels, [KeepLargest(labels=(2,))], UNIT)
    assert (kept[0, 0, 0], kept[1, 1, 1], kept[0, 0, 3]) == (2, 2, 0)


def test_small_components_go_by_their_volume() -> None:
    step = RemoveSmall(labels=(1, 2, 4), below_mm3=3)
    assert after("22.144", step) == "...144"
    assert after("22.144", step, voxel_mm3=1.5) == "22.144"  # 3 mm3 are not below 3 mm3


def test_holes_are_filled_where_they_are_closed_on_all_sides() -> None:
    shell = np.full((3, 3, 5), 2, np.uint8)
    shell[1, 1, 1], shell[1, 1, 3], shell[0, 0, 4] = 0, 1, 0
    filled = post_processed(shell, [FillHoles(labels=(1, 2, 4), filled_with=2)], UNIT)
    assert (filled[1, 1, 1], filled[1, 1, 3], filled[0, 0, 4]) == (2, 1, 0)


def test_steps_are_applied_one_after_the_other() -> None:
    first = RemoveSmall(labels=(4,), below_mm3=2)
    second = ReplaceScarce(label=4, below_voxels=3, replacement=1)
    assert after("4.2244", first, second) == "..2211"
    assert after("4.2244", second, first) == "..2244"


def test_what_changes_nothing_returns_the_very_array() -> None:
    labels = line("2214422")
    assert post_processed(labels, [KeepLargest(labels=(2, 1, 4))], UNIT) is labels
    assert post_processed(labels, [], UNIT) is labels


@given(label_maps, st.lists(st.sampled_from(STEPS), max_size=3))
def test_the_prediction_itself_is_not_changed_and_labels_stay_known(
    labels: LabelMap, chain: list[Step]
) -> None:
    before = labels.copy()
    found = post_processed(labels, chain, UNIT)
    assert np.array_equal(labels, before)
    assert set(np.unique(found)) <= {0, 1, 2, 4}
    assert found.dtype == np.uint8


@given(label_maps, st.sampled_from(STEPS))
def test_a_step_done_twice_is_done_once(labels: LabelMap, step: Step) -> None:
    once = post_processed(labels, [step], UNIT)
    assert np.array_equal(post_processed(once, [step], UNIT), once)


def test_brats_offers_the_thresholds_and_the_rule_of_its_papers() -> None:
    thresholds = [
        step.below_voxels for step in STEPS if isinstance(step, ReplaceScarce) and not step.beside
    ]
    assert {200, 500, 600, 750} <= set(thresholds)
    rule = next(step for step in STEPS if isinstance(step, ReplaceScarce) and step.beside)
    assert (rule.below_voxels, rule.beside_above_voxels) == (129.5, 16954)
    later = steps_for(load_task("brats-2023"))
    assert later[0] == ReplaceScarce(label=3, below_voxels=50, replacement=1)


def test_other_tasks_offer_components_and_holes_for_all_foreground_and_every_region() -> None:
    steps = steps_for(load_task("hippocampus"))
    assert [step.labels for step in steps if isinstance(step, KeepLargest)] == [(1, 2), (1,), (2,)]
    assert not any(isinstance(step, ReplaceScarce) for step in steps)


def test_holes_get_the_label_that_the_regions_border_is_made_of() -> None:
    filled = {step.labels: step.filled_with for step in STEPS if isinstance(step, FillHoles)}
    assert filled == {(1, 2, 4): 2, (1, 4): 1, (4,): 4}


def test_a_chain_arrives_as_it_was_sent() -> None:
    plain = json.loads(canonical_json(STEPS))
    assert decode(Chain, plain, source="chain") == STEPS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            ReplaceScarce(label=4, below_voxels=200, replacement=1),
            "enhancing of fewer than 200 voxels becomes necrosis",
        ),
        (
            ReplaceScarce(
                label=4, below_voxels=129.5, replacement=1, beside=1, beside_above_voxels=16954
            ),
            (
                "enhancing of fewer than 129.5 voxels becomes necrosis where necrosis has more "
                "than 16954 voxels"
            ),
        ),
        (KeepLargest(labels=(1, 2, 4)), "only the largest component of all foreground stays"),
        (RemoveSmall(labels=(1, 4), below_mm3=50), "components of TC below 50 mm3 go"),
        (FillHoles(labels=(4,), filled_with=4), "holes in enhancing become enhancing"),
    ],
)
def test_every_step_says_what_it_does(step: Step, words: str) -> None:
    assert in_words(step, BRATS) == words
