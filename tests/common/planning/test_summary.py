"""Target spacing and median shape; each test lists its cases as (spacing, shape)."""

from collections.abc import Iterable

import pytest

from common.axes import Shape, SpacingMm
from common.codec import decode
from common.errors import ConfigError
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge_all
from common.planning.summary import PlanSummary, summary_of
from common.task import Task

TASK = Task(
    name="any", version=1, channels=("MRI",), labels={"background": 0, "a": 1}, regions={"a": (1,)}
)


def of(cases: Iterable[tuple[SpacingMm, Shape]]) -> Fingerprint:
    return merge_all(
        {
            str(number): fingerprint_of(shape, shape, spacing, None, TASK)
            for number, (spacing, shape) in enumerate(cases)
        }
    )


def test_target_is_the_median_spacing_per_axis() -> None:
    summary = summary_of(
        of(
            [
                ((1.0, 0.5, 0.7), (10, 10, 10)),
                ((2.0, 0.5, 0.8), (20, 10, 10)),
                ((1.5, 0.6, 0.9), (31, 10, 10)),
            ]
        )
    )
    assert summary.target_spacing_mm == (1.5, 0.5, 0.8)
    # z extents 10, 40 and 46.5 mm at 1.5 mm
    assert summary.median_shape_at_target[0] == pytest.approx(40 / 1.5, rel=1e-15)


def test_cases_of_one_odd_spacing_keep_their_whole_numbered_shape() -> None:
    spacing = (0.9765625, 0.78125, 1 / 3)
    summary = summary_of(of([(spacing, (511, 512, 301)), (spacing, (512, 512, 302))]))
    assert summary.median_shape_at_target == (511.5, 512.0, 301.5)


def test_thick_and_few_slices_take_the_tenth_percentile() -> None:
    # ten cases of 4 mm and one of 2 mm: rank 0.1 * 10 = 1, the first of the 4 mm
    thick = [((4.0, 1.0, 1.0), (20, 200, 200))] * 10
    assert summary_of(of([*thick, ((2.0, 1.0, 1.0), (40, 200, 200))])).target_spacing_mm[0] == 4.0
    # two of 2 mm among eleven: rank 1 is the second 2 mm
    thin = [((2.0, 1.0, 1.0), (40, 200, 200))] * 2
    assert summary_of(of([*thick[:9], *thin])).target_spacing_mm[0] == 2.0


def test_thick_but_many_slices_keep_the_median() -> None:
    thick = [((4.0, 1.0, 1.0), (70, 200, 200))] * 9
    thin = [((2.0, 1.0, 1.0), (140, 200, 200))] * 2
    assert summary_of(of([*thick, *thin])).target_spacing_mm == (4.0, 1.0, 1.0)


def test_three_times_the_spacing_is_not_yet_anisotropic() -> None:
    thick = [((3.0, 1.0, 1.0), (20, 200, 200))] * 9
    thin = [((2.0, 1.0, 1.0), (40, 200, 200))] * 2
    assert summary_of(of([*thick, *thin])).target_spacing_mm == (3.0, 1.0, 1.0)


def test_the_tenth_percentile_is_clamped_just_above_the_plane() -> None:
    # KiTS: median 3 mm, some slices thinner than the pixels
    thick = [((3.0, 0.78, 0.78), (100, 512, 512))] * 8
    thin = [((0.5, 0.78, 0.78), (600, 512, 512))] * 2
    assert summary_of(of([*thick, *thin])).target_spacing_mm == (0.78001, 0.78, 0.78)


def test_one_case_is_its_own_median() -> None:
    summary = summary_of(of([((20.0, 1.0, 1.0), (6, 300, 301))]))
    assert summary.target_spacing_mm == (20.0, 1.0, 1.0)
    assert summary.median_shape_at_target == (6.0, 300.0, 301.0)
    assert (summary.n_training_cases, summary.n_foreground_classes) == (1, 1)


def test_no_cases_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one case"):
        summary_of(empty(TASK))


def test_a_summary_file_with_faults_lists_them_all() -> None:
    plain = {
        "name": "x",
        "channels": ["MRI"],
        "n_training_cases": 0,
        "n_foreground_classes": 1,
        "target_spacing": [1.0, 1.0, 1.0],
        "median_shape_at_target": [10, 10],
    }
    with pytest.raises(ConfigError) as caught:
        decode(PlanSummary, plain, source="summary.json")
    text = str(caught.value)
    assert "n_training_cases" in text
    assert "did you mean 'target_spacing_mm'?" in text
    assert "median_shape_at_target" in text


def test_v2_compares_with_the_coarser_in_plane_axis() -> None:
    thick = [((4.0, 1.5, 1.0), (20, 200, 200))] * 9
    thin = [((2.0, 1.5, 1.0), (40, 200, 200))] * 2
    # 4 is above 3 * 1.0 and below 3 * 1.5
    assert summary_of(of([*thick, *thin])).target_spacing_mm[0] == 2.0
    assert summary_of(of([*thick, *thin]), "v2").target_spacing_mm[0] == 4.0


def test_v2_takes_the_median_of_rounded_shapes() -> None:
    # at 2 mm: 15.5, 10, 5 and 40 voxels
    cases = [((1.0, 1.0, 1.0), (31, 9, 9)), ((2.0, 1.0, 1.0), (10, 9, 9))]
    target = [*cases, ((2.0, 1.0, 1.0), (5, 9, 9)), ((2.0, 1.0, 1.0), (40, 9, 9))]
    assert summary_of(of(target)).median_shape_at_target[0] == 12.75  # of 10 and 15.5
    assert summary_of(of(target), "v2").median_shape_at_target[0] == 13.0  # of 10 and 16
