"""Expected numbers were printed by nnunetv2 2.8.1 with scikit-image 0.26
(`resample_data_or_seg_to_spacing`), labels with batchgenerators 0.25.1, whose decision is "half".
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.preparation.resample import (
    resample_image,
    resample_labels,
    resample_probabilities,
    resampled_shape,
    separate_axis,
)
from common.planning.preparation import Resampling

SIZES = st.tuples(*[st.integers(2, 6)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.5, 0.9, 1.0, 1.7, 4.0])] * 3)


def test_the_new_shape_rounds_to_the_nearest_voxel() -> None:
    assert resampled_shape((10, 11, 3), (1.0, 1.0, 0.1), (3.0, 0.8, 1.0)) == (3, 14, 1)


def test_a_line_of_squares_follows_the_published_cubic_spline() -> None:
    image = np.array([[[[0, 1, 4, 9, 16, 25, 36, 49]]]], np.float32)
    resampled = resample_image(image, (1.0, 1.0, 1.0), (1.0, 1.0, 1.6))
    expected = [0.137584507, 3.606785297, 12.226896286, 25.950002670, 46.084484100]
    assert resampled.shape == (1, 1, 1, 5)
    assert resampled.dtype == np.float32
    assert resampled.ravel().tolist() == pytest.approx(expected, abs=1e-5)


def test_a_volume_follows_the_published_cubic_spline_and_keeps_its_range() -> None:
    image = np.array(
        [[[[0, 1, 4], [9, 16, 25]], [[36, 49, 64], [81, 100, 121]]]], np.float32
    )  # 2x2x3 voxels, the squares of 0 to 11
    resampled = resample_image(image, (2.0, 2.0, 3.0), (1.0, 2.0, 2.0))
    assert resampled.shape == (1, 4, 2, 4)
    assert resampled[0, 0, 0].tolist() == [0, 0, 0, 0]  # the spline undershoots; the range holds
    assert resampled[0, 1, 1].tolist() == pytest.approx(
        [24.12091637, 29.47842026, 39.24819183, 46.27393341], abs=1e-4
    )
    assert resampled[0, 3, 1].tolist() == pytest.approx(
        [87.09612274, 98.63878632, 118.16812134, 121.0], abs=1e-4
    )


def test_thick_slices_are_repeated_and_never_mixed() -> None:
    ramp = np.array([1, 2, 3, 4], np.float32)
    image = (ramp[:, None, None] * ramp)[None]  # 4 slices of 1x4 voxels
    resampled = resample_image(image, (4.0, 1.0, 1.0), (3.0, 1.0, 2.0))
    low, high = 1.4264428616, 3.5735571384
    expected = [[low * k, high * k] for k in (1, 2, 3, 3, 4)]  # slice 3 is nearest to two new ones
    np.testing.assert_allclose(resampled[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("original_mm", "network_mm", "axis"),
    [
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),
        ((3.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),  # exactly three times is not too thick
        ((3.1, 1.0, 1.0), (1.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 5.0), (9.0, 1.0, 1.0), 2),  # the image decides before the plan
        ((1.0, 1.0, 1.0), (1.0, 4.0, 1.0), 1),
        ((5.0, 5.0, 1.0), (1.0, 4.0, 1.0), None),  # two thick axes are no stack of slices
    ],
)
def test_the_thick_axis_is_found(
    original_mm: tuple[float, float, float],
    network_mm: tuple[float, float, float],
    axis: int | None,
) -> None:
    assert separate_axis(original_mm, network_mm) == axis


def test_labels_are_taken_where_they_hold_half_and_the_higher_wins_a_tie() -> None:
    labels = np.array([[[0, 0, 1, 1, 2, 3, 3, 0]]], np.uint8)
    halved = resample_labels(labels, (1.0, 1.0, 1.0), (1.0, 1.0, 2.0))
    finer = resample_labels(labels, (1.0, 1.0, 1.0), (1.0, 1.0, 0.7))
    assert halved.tolist() == [[[0, 1, 3, 3]]]
    assert finer.tolist() == [[[0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 0]]]
    assert halved.dtype == np.uint8


def test_a_voxel_in_which_no_label_holds_half_is_background() -> None:
    labels = np.array([[[1, 2], [3, 4]]], np.uint8)
    assert resample_labels(labels, (1.0, 1.0, 1.0), (1.0, 2.0, 2.0)).tolist() == [[[0]]]


def test_labels_of_thick_slices_are_repeated() -> None:
    labels = np.array([[[1, 1]], [[2, 2]]], np.uint8)
    resampled = resample_labels(labels, (4.0, 1.0, 1.0), (2.0, 1.0, 1.0))
    assert resampled.tolist() == [[[1, 1]], [[1, 1]], [[2, 2]], [[2, 2]]]


def test_probabilities_are_interpolated_linearly() -> None:
    probabilities = np.array([0, 0.1, 0.4], np.float32).reshape(1, 1, 1, 3)
    resampled = resample_probabilities(probabilities, (1, 1, 6), (1.0, 1.0, 0.5), (1.0, 1.0, 1.0))
    expected = [0.0, 0.025, 0.075, 0.175, 0.325, 0.4]
    assert resampled.ravel().tolist() == pytest.approx(expected, abs=1e-6)


RAMPS = np.array([[[[1, 5]], [[2, 2]], [[0, 2]], [[3, 3]]]], np.float32)  # 4 slices of 1x2


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (0, [[1.0, 5.0, 5.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0]]),
        (1, [[1.16666663, 2.83333325, 4.5], [1.0, 1.5, 2.0], [2.5, 2.66666675, 2.83333325]]),
        (
            3,
            [
                [0.96760470, 2.91996193, 4.87231922],
                [0.73726535, 1.19855714, 1.65984905],
                [2.49511647, 2.70931315, 2.92350960],
            ],
        ),
    ],
)
def test_a_plan_may_set_the_order_of_the_image(order: int, expected: list[list[float]]) -> None:
    resampling = Resampling(image_order=order)  # type: ignore[arg-type]
    found = resample_image(RAMPS, (1.0, 1.0, 1.0), (1.3, 1.0, 0.7), resampling)
    np.testing.assert_allclose(found[0, :, 0], expected, atol=1e-5)


def test_a_plan_may_interpolate_across_thick_slices() -> None:
    resampling = Resampling(across_thick_slices_order=1)
    found = resample_image(RAMPS, (4.0, 1.0, 1.0), (2.0, 1.0, 1.0), resampling)
    expected = [[1, 5], [1.25, 4.25], [1.75, 2.75], [1.5, 2], [0.5, 2], [0.75, 2.25]]
    np.testing.assert_allclose(found[0, :6, 0], expected, atol=1e-5)
    labels = np.array([[[1, 1]], [[2, 2]]], np.uint8)
    middle = resample_labels(labels, (4.0, 1.0, 1.0), (8.0, 1.0, 1.0), resampling)
    assert middle.tolist() == [[[0, 0]]]  # half of each, more than half of neither


def test_a_plan_may_say_when_slices_are_thick() -> None:
    resampling = Resampling(image_order=1, thick_slices_ratio=5.0)
    found = resample_image(RAMPS, (4.0, 1.0, 1.0), (2.0, 1.0, 1.0), resampling)
    assert found[0, :3, 0, 0].tolist() == [1, 1.25, 1.75]  # not thick, so mixed across slices
    assert separate_axis((2.0, 1.0, 1.0), (1.0, 1.0, 1.0), 1.5) == 0


def test_a_plan_may_take_the_nearest_label_and_the_nearest_probability() -> None:
    resampling = Resampling(label_order=0, probability_order=0)
    labels = np.array([[[1, 2], [3, 4]]], np.uint8)
    found = resample_labels(labels, (1.0, 1.0, 1.0), (1.0, 2.0, 2.0), resampling)
    assert found.tolist() == [[[4]]]
    probabilities = np.array([0, 0.1, 0.4], np.float32).reshape(1, 1, 1, 3)
    spacings = ((1.0, 1.0, 0.5), (1.0, 1.0, 1.0))
    back = resample_probabilities(probabilities, (1, 1, 6), *spacings, resampling)
    assert back.ravel().tolist() == pytest.approx([0, 0, 0.1, 0.1, 0.4, 0.4])


def test_an_unchanged_shape_is_not_interpolated() -> None:
    image, labels = np.ones((2, 3, 4, 5), np.float32), np.ones((3, 4, 5), np.uint8)
    assert resample_image(image, (1.0, 1.0, 1.0), (1.01, 1.0, 1.0)) is image
    assert resample_labels(labels, (1.0, 1.0, 1.0), (1.01, 1.0, 1.0)) is labels
    assert resample_probabilities(image, (3, 4, 5), (1.0, 1.0, 1.0), (1.1, 1.0, 1.0)) is image


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, SIZES, elements=st.floats(-5, 5, width=32)), SPACINGS, SPACINGS)
def test_a_resampled_image_stays_within_the_range_of_the_original(
    volume: np.ndarray, spacing: tuple[float, ...], target: tuple[float, ...]
) -> None:
    resampled = resample_image(volume[None], spacing, target)
    assert volume.min() <= resampled.min()
    assert resampled.max() <= volume.max()


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, SIZES, elements=st.integers(0, 4)), SPACINGS, SPACINGS)
def test_resampling_brings_no_new_label(
    labels: np.ndarray, spacing: tuple[float, ...], target: tuple[float, ...]
) -> None:
    resampled = resample_labels(labels, spacing, target)
    assert set(np.unique(resampled)) <= set(np.unique(labels)) | {0}
