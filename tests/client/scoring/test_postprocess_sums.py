"""A site's sums over its validation cases: equal however the cases are spread over sites."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.scoring.postprocess_sums import LabelledCase, validation_sums
from common.errors import PolicyError
from common.evaluation.postprocess import steps_for
from common.evaluation.postprocess_choice import ValidationSums, choose, extended, merged, no_cases
from common.task import load_task

BRATS = load_task("brats-2021")
CANDIDATES = extended((), steps_for(BRATS))
UNIT = (1.0, 1.0, 1.0)


def case(seed: int) -> LabelledCase:
    """Return a tumour; of two, one has no enhancing part but a few predicted voxels of it."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:9, :10, :11]
    distance = (z - 4) ** 2 + (y - 5) ** 2 + (x - 5) ** 2
    reference = np.select([distance < 3, distance < 8, distance < 14], [4, 1, 2]).astype(np.uint8)
    prediction = np.roll(reference, rng.integers(0, 2), axis=2)
    if seed % 2:
        reference[reference == 4] = 1
        prediction[(prediction == 4) & (rng.random(reference.shape) < 0.6)] = 1
    prediction[0, 0, 0] = 2  # a stray voxel
    return reference, prediction, UNIT


def sums(cases: list[LabelledCase], min_cases: int = 0) -> ValidationSums:
    return validation_sums(cases, CANDIDATES, BRATS, hd95="pooled", min_cases=min_cases)


@settings(max_examples=5)
@given(st.permutations(range(5)), st.integers(0, 5))
def test_the_sums_of_sites_add_up_to_those_of_all_cases(order: list[int], cut: int) -> None:
    pooled = sums([case(seed) for seed in range(5)])
    sites = [sums([case(seed) for seed in part]) for part in (order[:cut], order[cut:])]
    assert merged(*sites) == pooled


def test_the_threshold_that_helps_is_found() -> None:
    steps = [step for step in steps_for(BRATS) if step.kind == "replace-scarce"]
    cases = [case(seed) for seed in (1, 3)]  # of which none has any enhancing tumour
    found = validation_sums(cases, extended((), steps), BRATS, hd95="pooled", min_cases=1)
    assert choose(found, BRATS).chain == (steps[0],)
    assert found.n_changed == (0, *[2] * 9, 0)


def test_a_further_search_begins_with_what_is_applied_so_far() -> None:
    cases = [case(seed) for seed in (1, 3)]
    chosen = choose(sums(cases), BRATS).chain
    candidates = extended(chosen, steps_for(BRATS))
    further = validation_sums(cases, candidates, BRATS, hd95="pooled", min_cases=1)
    assert further.n_changed[0] == 0
    assert further.dice_units[0] == sums(cases).dice_units[CANDIDATES.index(chosen)]
    again = choose(further, BRATS).chain
    assert again[: len(chosen)] == chosen
    kinds = {step.kind for step in again}
    assert kinds == {"keep-largest", "replace-scarce"}  # the stray voxel, and the false tumour


def test_no_cases_give_the_sums_of_none() -> None:
    assert sums([]) == no_cases(CANDIDATES, BRATS)


def test_of_too_few_cases_nothing_is_said() -> None:
    with pytest.raises(PolicyError, match="expected at least 3"):
        sums([case(0), case(1)], min_cases=3)
