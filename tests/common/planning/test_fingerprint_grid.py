from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataError, MessageError
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge_all
from common.planning.fingerprint_grid import (
    EXTENTS,
    SPACINGS,
    error_on_grid,
    from_vector,
    n_words,
    to_vector,
)
from common.planning.histogram import percentile
from common.planning.planner import plan
from common.planning.release import ErrorBound
from common.secure_sum import added
from common.task import Task

MRI = Task(
    name="hippocampus",
    version=1,
    channels=("MRI",),
    labels={"background": 0, "anterior": 1},
    regions={"anterior": (1,)},
)
CT = replace(MRI, name="liver", channels=("CT",))
COMMON_MM = [0.5, 0.78125, 0.859375, 0.9375, 0.9766, 1.0, 1.25, 3.0, 5.0]


def pooled(*parts: Fingerprint, task: Task = MRI) -> Fingerprint:
    return merge_all({"": empty(task), **{str(number): part for number, part in enumerate(parts)}})


def case(
    depth: int, spacing_mm: float = 1.0, in_plane: tuple[int, int] = (60, 50), task: Task = MRI
) -> Fingerprint:
    hu = {"CT": np.array([-3.0, depth, 2900.0])}
    shape = (depth, *in_plane)
    return fingerprint_of(shape, shape, (spacing_mm, 1.0, 1.0), hu, task)


def summed(*parts: Fingerprint, task: Task = MRI) -> Fingerprint:
    total = added(map(to_vector, parts), n_words(task.channels))
    return from_vector(total, empty(task))


lengths = st.integers(1, 399)  # of at most 5 mm: below 2 m


def sites_of(spacings: st.SearchStrategy[tuple[float, float, float]], task: Task = MRI):
    """Return a strategy for three to five sites of one to six cases."""
    cases = st.builds(
        lambda shape, kept, spacing, hu: fingerprint_of(
            (shape[0] + kept, *shape[1:]), shape, spacing, {"CT": np.array(hu, np.float32)}, task
        ),
        st.tuples(lengths, lengths, lengths),
        st.integers(0, 300),
        spacings,
        st.lists(st.integers(-1500, 4000), min_size=2, max_size=20),
    )
    one = st.lists(cases, min_size=1, max_size=6).map(lambda found: pooled(*found, task=task))
    return st.lists(one, min_size=3, max_size=5)


common = st.tuples(*[st.sampled_from(COMMON_MM)] * 3)
one_spacing = common.flatmap(lambda spacing: sites_of(st.just(spacing), CT))
half_mm = sites_of(st.tuples(*[st.sampled_from([0.5, 1.0, 2.5, 3.0])] * 3), CT)
any_spacing = st.tuples(*[st.one_of(st.floats(0.2, 5.0), st.sampled_from(COMMON_MM))] * 3)


# On the grid


@settings(max_examples=30)
@given(st.one_of(one_spacing, half_mm))
def test_on_the_grid_the_sum_is_the_merge_and_the_plan_the_same(sites: list[Fingerprint]) -> None:
    plain, found = pooled(*sites, task=CT), summed(*sites, task=CT)
    assert found == plain
    assert plan(found).hash == plan(plain).hash


def test_usual_voxel_sizes_lose_nothing() -> None:
    for spacing_mm in COMMON_MM:
        parts = [case(depth, spacing_mm) for depth in (37, 111, 155, 240, 512)]
        assert summed(*parts) == pooled(*parts)


def test_several_usual_voxel_sizes_in_one_federation_lose_nothing_either() -> None:
    parts = [case(155, 0.9375), case(512, 0.78125), case(173, 1.0), case(37, 3.0)]
    assert summed(*parts) == pooled(*parts)


def test_intensities_are_exact() -> None:
    parts = [case(40, task=CT), case(41, task=CT)]
    found = summed(*parts, task=CT).ct["CT"]
    assert (found.n_voxels, found.total_hu, found.total_squared_hu2) == (6, 5875, 16_823_299)
    assert found.histogram_hu == {-3: 2, 40: 1, 41: 1, 2900: 2}


def test_a_negative_sum_of_intensities_stays_negative() -> None:
    air = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), {"CT": np.array([-1000.0])}, CT)
    assert summed(air, air, task=CT).ct["CT"].total_hu == -2000


def test_cropped_cases_are_counted() -> None:
    cropped = fingerprint_of((400, 9, 9), (40, 9, 9), (1.0, 1.0, 1.0), None, MRI)
    assert summed(cropped, case(40), cropped).n_cropped == 2


def test_nothing_adds_nothing() -> None:
    assert not to_vector(empty(CT)).any()
    assert summed(task=CT) == empty(CT)


def test_the_vector_has_one_length_for_all_sites_of_a_task_and_is_below_1_5_mb() -> None:
    assert to_vector(case(40)).nbytes == to_vector(empty(MRI)).nbytes == 1_382_320
    assert to_vector(case(40, task=CT)).nbytes == 1_415_112


def test_the_grid_is_what_it_says() -> None:
    assert SPACINGS.values[[0, 9374, 14_999, 15_000, -1]].tolist() == [
        1,
        9375,
        15_000,
        15_010,
        200_000,
    ]
    assert EXTENTS.values[[0, 1, -1]].tolist() == [1000, 2000, 20_000_000]
    assert (np.diff(SPACINGS.values) > 0).all()


# Off the grid


@settings(max_examples=30)
@given(sites_of(any_spacing), st.sampled_from([0.0, 10.0, 50.0, 99.5, 100.0]))
def test_off_the_grid_no_percentile_moves_by_more_than_the_largest_bound_of_a_site(
    sites: list[Fingerprint], percent: float
) -> None:
    plain, found = pooled(*sites), summed(*sites)
    bounds = [error_on_grid(site) for site in sites]
    limits = {
        "shapes_voxels": max(bound.shape_voxels for bound in bounds),
        "spacings_ticks": max(bound.spacing_mm for bound in bounds) * 1e4,
        "extents_ticks": max(bound.extent_mm for bound in bounds) * 1e4,
    }
    assert limits["shapes_voxels"] == 0
    assert limits["spacings_ticks"] <= 5.001
    assert limits["extents_ticks"] <= 1000
    for name, limit in limits.items():
        for before, after in zip(getattr(plain, name), getattr(found, name), strict=True):
            moved = abs(percentile(before, percent) - percentile(after, percent))
            assert moved <= limit * (1 + 1e-9) + 1e-6


def test_what_is_larger_than_the_grid_joins_its_last_value_and_the_bound_says_so() -> None:
    huge = case(5000, 25.0)
    found = summed(huge)
    assert found.shapes_voxels[0] == {4096: 1}
    assert found.spacings_ticks[0] == {200_000: 1}
    assert error_on_grid(huge) == ErrorBound(
        shape_voxels=904, spacing_mm=5.0, extent_mm=123_000.0, intensity_hu=0, cropped_cases=0
    )


def test_two_lengths_that_cannot_be_told_apart_stay_on_the_grid() -> None:
    # 3 * 3.3336 and 10 * 1.0001 mm: 10.0008 and 10.001 mm, both in the step at 10.0 mm
    parts = [case(3, 3.3336), case(10, 1.0001)]
    assert summed(*parts).extents_ticks[0] == {100_000: 2}
    assert error_on_grid(parts[0]).extent_mm == 0.1


def test_among_too_many_products_none_is_looked_for() -> None:
    n = 1500  # shapes and as many spacings: more products than there are steps by far
    counts = dict.fromkeys(range(1, n + 1), 1)
    off = {1000 * extent + 7: 1 for extent in counts}
    one = {1: n}
    many = replace(
        empty(MRI),
        n_cases=n,
        shapes_voxels=(counts, one, one),
        spacings_ticks=(counts, one, one),
        extents_ticks=(off, one, one),
    )
    assert {extent % 1000 for extent in summed(many).extents_ticks[0]} == {0}


# What is refused


def test_masks_that_did_not_cancel_are_refused() -> None:
    rng = np.random.default_rng(5)
    for task in (MRI, CT):
        for _ in range(10):
            vector = rng.integers(0, 2**64 - 1, n_words(task.channels), np.uint64)
            vector[0] >>= np.uint64(2)  # the plausible ones of them
            vector[1] >>= np.uint64(3)
            with pytest.raises(MessageError, match="implausible"):
                from_vector(vector, empty(task))


@pytest.mark.parametrize("word", [0, 5, 40_000, 150_000])
@pytest.mark.parametrize("change", [1, -1, 2**63])
def test_a_single_word_that_was_changed_is_refused(word: int, change: int) -> None:
    vector = to_vector(pooled(case(40), case(50)))
    vector[word : word + 1] += np.uint64(change % 2**64)
    with pytest.raises(MessageError, match="implausible"):
        from_vector(vector, empty(MRI))


def test_a_vector_of_another_task_is_refused() -> None:
    with pytest.raises(MessageError, match=r"expected 176889, found \(172790,\)"):
        from_vector(to_vector(case(40)), empty(CT))


def test_sums_that_could_overflow_are_refused_before_they_leave() -> None:
    hu = {"CT": np.full(100, 1e8)}
    absurd = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), hu, CT)
    with pytest.raises(DataError, match=r"expected sums below .* are intensities in HU\?"):
        to_vector(absurd)
