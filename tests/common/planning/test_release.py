from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PolicyError
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge_all
from common.planning.histogram import percentile
from common.planning.planner import plan
from common.planning.release import ErrorBound, coarse, error_bound, released, smallest_voxel_bin
from common.task import Task

MRI = Task(
    name="hippocampus",
    version=1,
    channels=("MRI",),
    labels={"background": 0, "anterior": 1},
    regions={"anterior": (1,)},
)
CT = replace(MRI, name="liver", channels=("CT",))

lengths = st.integers(1, 600)
spacings = st.sampled_from([0.5, 0.78125, 0.9766, 1.0, 1.25, 3.0, 5.0])
cases = st.builds(
    lambda shape, spacing, kept, hu: fingerprint_of(
        (shape[0] + kept, *shape[1:]), shape, spacing, {"CT": np.array(hu, np.float32)}, CT
    ),
    st.tuples(lengths, lengths, lengths),
    st.tuples(spacings, spacings, spacings),
    st.integers(0, 300),
    st.lists(st.integers(-1024, 3071), min_size=3, max_size=20),
)
sites = st.lists(cases, min_size=3, max_size=12)


def pooled(*parts: Fingerprint) -> Fingerprint:
    return merge_all({str(number): part for number, part in enumerate(parts)})


def heads(*depths: int, before: int = 0, task: Task = MRI) -> Fingerprint:
    """Return cases of 10 x 10 voxels in the plane; `before` voxels deep before the crop."""
    hu = {"CT": np.arange(10.0)}
    shapes = [((max(before, depth), 10, 10), (depth, 10, 10)) for depth in depths]
    return pooled(*[fingerprint_of(*shape, (2.0, 1.0, 1.0), hu, task) for shape in shapes])


def test_an_exact_release_is_what_was_measured() -> None:
    assert released(heads(40, 90), "exact", 5) == heads(40, 90)


def test_one_site_alone_cannot_release_a_secure_sum() -> None:
    with pytest.raises(
        PolicyError, match=r"a file cannot be masked alone; .* nothing was released"
    ):
        released(heads(40, 90), "secure-sum", 5)


def test_every_bin_of_a_coarse_release_holds_enough_cases() -> None:
    found = released(heads(40, 41, 44, 60, 60, 60, 97), "coarse", 3)
    assert found.shapes_voxels == ({41: 3, 60: 4}, {10: 7}, {10: 7})
    assert found.spacings_ticks == ({20000: 7}, {10000: 7}, {10000: 7})
    assert found.extents_ticks == ({820000: 3, 1200000: 4}, {100000: 7}, {100000: 7})
    assert found.n_cases == 7


def test_the_error_bound_is_the_largest_move_of_a_case_in_units_of_a_reader() -> None:
    measured = heads(40, 41, 44, 60, 60, 60, 97)
    assert error_bound(measured, coarse(measured, 3)) == ErrorBound(
        shape_voxels=37, spacing_mm=0.0, extent_mm=74.0, intensity_hu=0, cropped_cases=0
    )
    assert error_bound(measured, measured) == ErrorBound(
        shape_voxels=0, spacing_mm=0.0, extent_mm=0.0, intensity_hu=0, cropped_cases=0
    )


@pytest.mark.parametrize(
    ("n_cropped", "told"), [(0, 0), (1, 0), (2, 0), (3, 3), (4, 4), (5, 7), (6, 7), (7, 7)]
)
def test_fewer_cropped_cases_than_a_bin_holds_are_counted_with_the_others(
    n_cropped: int, told: int
) -> None:
    assert coarse(replace(heads(*range(40, 47)), n_cropped=n_cropped), 3).n_cropped == told


@pytest.mark.parametrize(("n_cropped", "told"), [(2, 0), (3, 5)])
def test_the_majority_of_cropped_cases_stays_one_in_a_single_bin(n_cropped: int, told: int) -> None:
    assert coarse(replace(heads(*range(40, 45)), n_cropped=n_cropped), 5).n_cropped == told


@pytest.mark.parametrize("n_cases", [0, 1, 4])
def test_a_site_with_fewer_cases_than_a_bin_releases_nothing(n_cases: int) -> None:
    few = pooled(empty(MRI), *[heads(40)] * n_cases)
    with pytest.raises(PolicyError, match=f"at least 5 cases, one full bin, found {n_cases}; noth"):
        coarse(few, 5)


def test_bins_of_two_are_refused_because_they_would_show_the_smaller_value() -> None:
    with pytest.raises(PolicyError, match="min_cases: expected at least 3, found 2"):
        coarse(heads(40, 41, 42), 2)


def test_a_handful_of_ct_voxels_is_refused() -> None:
    hu = {"CT": np.array([5.0])}
    one = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), hu, CT)
    none = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), None, CT)
    with pytest.raises(PolicyError, match="channel CT: expected at least 3 foreground voxels"):
        coarse(pooled(one, one, none), 3)
    assert coarse(pooled(none, none, none), 3) == pooled(none, none, none)


@pytest.mark.parametrize(
    ("n_voxels", "n_cases", "min_cases", "expected"),
    [(1_000_000, 20, 5, 2500), (100, 10, 5, 5), (300, 3, 3, 3), (60_001, 10, 5, 301)],
)
def test_a_bin_of_voxels_holds_a_hundredth_of_so_many_average_cases(
    n_voxels: int, n_cases: int, min_cases: int, expected: int
) -> None:
    assert smallest_voxel_bin(n_voxels, n_cases, min_cases) == expected


def test_an_implant_of_one_patient_disappears_and_tissue_keeps_its_single_hu() -> None:
    tissue = np.repeat(np.arange(40.0, 60.0), 50)  # 20 values, 1000 voxels
    usual = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), {"CT": tissue}, CT)
    metal = {"CT": np.append(tissue, [2900.0, 3000.0, 3071.0])}
    implant = fingerprint_of((9, 9, 9), (9, 9, 9), (1.0, 1.0, 1.0), metal, CT)
    measured = pooled(*[usual] * 9, implant)
    found = coarse(measured, 5)  # bins of at least 51 voxels
    assert found.ct["CT"].histogram_hu == {**dict.fromkeys(range(40, 59), 500), 59: 503}
    assert found.ct["CT"].total_hu == measured.ct["CT"].total_hu
    assert error_bound(measured, found).intensity_hu == 3012


@given(sites, st.integers(3, 6))
def test_coarse_twice_is_coarse_once_and_totals_are_kept(
    parts: list[Fingerprint], min_cases: int
) -> None:
    measured = pooled(*parts * 2)  # at least as many cases as a bin holds
    found = coarse(measured, min_cases)
    assert coarse(found, min_cases) == found
    assert found.n_cases == measured.n_cases
    assert found.ct["CT"].n_voxels == measured.ct["CT"].n_voxels
    assert found.n_cropped in {0, measured.n_cropped, measured.n_cases}
    for axes in (found.shapes_voxels, found.spacings_ticks, found.extents_ticks):
        for axis in axes:
            assert sum(axis.values()) == measured.n_cases
            assert min(axis.values()) >= min_cases


@given(st.lists(sites, min_size=1, max_size=4), st.sampled_from([10.0, 50.0]))
def test_no_percentile_of_a_federation_moves_by_more_than_the_largest_bound_of_a_site(
    federation: list[list[Fingerprint]], percent: float
) -> None:
    measured = [pooled(*parts) for parts in federation]
    coarsened = [coarse(site, 3) for site in measured]
    bounds = [error_bound(*both) for both in zip(measured, coarsened, strict=True)]
    exact, rough = pooled(*measured), pooled(*coarsened)
    for axis in range(3):
        moved = percentile(exact.shapes_voxels[axis], percent) - percentile(
            rough.shapes_voxels[axis], percent
        )
        assert abs(moved) <= max(bound.shape_voxels for bound in bounds) + 1e-9
    moved = percentile(exact.ct["CT"].histogram_hu, 99.5) - percentile(
        rough.ct["CT"].histogram_hu, 99.5
    )
    assert abs(moved) <= max(bound.intensity_hu for bound in bounds) + 1e-6


def test_sites_of_both_modes_plan_together() -> None:
    first = coarse(heads(40, 41, 44, 60, 60, 60, 97), 3)
    second = heads(50, 52)
    made = plan(pooled(first, second))
    # 41 41 41 50 52 60 60 60 60: the median stays at 52
    assert made.configurations["3d_fullres"].median_shape == (52.0, 10.0, 10.0)
