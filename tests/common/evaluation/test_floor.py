"""The learning-free floor on images small enough to check by eye."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.axes import Mask
from common.evaluation.floor import best_threshold_floor, equalise, threshold_mask


def brain_with_cube(edge: int, brightness: float = 9.0) -> tuple[NDArray[np.float32], Mask]:
    """A brain of 10 x 10 x 10 ones inside zeros, with a bright cube in its corner."""
    image = np.zeros((12, 12, 12), dtype=np.float32)
    image[1:11, 1:11, 1:11] = 1.0
    cube = np.zeros(image.shape, dtype=bool)
    cube[1 : 1 + edge, 1 : 1 + edge, 1 : 1 + edge] = True
    image[cube] = brightness
    return image, cube


def test_equalised_intensity_is_the_fraction_of_brain_that_is_not_brighter() -> None:
    image = np.array([[[0.0, 7.0, 7.0, 100.0, 3.0, 0.0]]], dtype=np.float32)
    expected = [[[0.0, 0.75, 0.75, 1.0, 0.25, 0.0]]]
    np.testing.assert_array_equal(equalise(image), np.array(expected, dtype=np.float32))


def test_an_image_of_zeros_stays_zero() -> None:
    assert not equalise(np.zeros((2, 3, 4), dtype=np.float32)).any()


def test_negative_intensities_count_as_brain() -> None:
    image = np.array([[[-1.0, 0.0, 1.0, 2.0, 3.0]]], dtype=np.float32)
    np.testing.assert_array_equal(equalise(image).ravel(), [0.25, 0.0, 0.5, 0.75, 1.0])


@given(gain=st.sampled_from([0.5, 2.0, 8.0]), gamma=st.sampled_from([1, 2, 3]))
def test_equalisation_forgets_the_scanner_s_monotonic_contrast(gain: float, gamma: int) -> None:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(equalise(image), equalise(np.float32(gain) * image**gamma))


def test_components_of_19_voxels_go_and_of_20_stay() -> None:
    bright = np.zeros((3, 7, 20), dtype=np.float32)
    bright[0, 0, :19] = 0.9
    bright[2, 6, :20] = 0.9
    mask = threshold_mask(bright, 0.5)
    assert not mask[0].any()
    assert np.count_nonzero(mask[2]) == 20


def test_voxels_that_touch_at_a_corner_are_one_component() -> None:
    bright = np.zeros((20, 20, 20), dtype=np.float32)
    bright[np.arange(20), np.arange(20), np.arange(20)] = 0.9
    assert np.count_nonzero(threshold_mask(bright, 0.5)) == 20


def test_a_voxel_at_the_threshold_is_not_above_it() -> None:
    assert not threshold_mask(np.full((3, 3, 3), 0.5, dtype=np.float32), 0.5).any()


def test_a_tumour_brighter_than_all_else_is_found_whole() -> None:
    image, cube = brain_with_cube(edge=3)  # 27 of 1000 voxels: the rest is equalised to 0.973
    result = best_threshold_floor([image], [cube], [0.5, 0.98, 0.99])
    assert result.mean_dice == 1.0
    assert result.threshold == 0.98  # the lowest of the two that separate


def test_one_threshold_serves_all_cases_and_dice_is_their_mean() -> None:
    small, small_cube = brain_with_cube(edge=3)
    all_bright = np.ones((10, 10, 10), dtype=np.float32)
    tumour = np.zeros(all_bright.shape, dtype=bool)
    tumour[:5] = True  # 500 of 1000 voxels, all found at every threshold: 2 * 500 / 1500
    result = best_threshold_floor([small, all_bright], [small_cube, tumour], [0.98])
    assert result.mean_dice == pytest.approx((1.0 + 2 / 3) / 2)


def test_nothing_to_find_and_nothing_found_is_perfect() -> None:
    image, _ = brain_with_cube(edge=2)  # 8 of 1000 voxels: dropped
    result = best_threshold_floor([image], [np.zeros(image.shape, dtype=bool)], [0.995])
    assert result.mean_dice == 1.0


def test_without_cases_the_floor_is_zero() -> None:
    result = best_threshold_floor([], [], [0.7, 0.6])
    assert (result.mean_dice, result.threshold) == (0.0, 0.6)


def test_without_thresholds_there_is_no_floor() -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        best_threshold_floor([], [], [])


def test_every_image_needs_its_reference() -> None:
    image, cube = brain_with_cube(edge=3)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        best_threshold_floor([image, image], [cube], [0.5])
