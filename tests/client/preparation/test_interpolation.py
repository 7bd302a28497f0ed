"""The reference is scipy's own zoom, which computes in all axes at once and voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from client.preparation.interpolation import axis_weights, interpolate, nearest, neighbours

SHAPES = st.tuples(*[st.integers(1, 14)] * 3)


def zoomed(volume: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    return ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)


@settings(max_examples=60)
@given(SHAPES, SHAPES, st.sampled_from([0, 1, 3]), st.integers(0, 99))
def test_axis_by_axis_is_the_same_as_all_at_once(
    old: tuple[int, ...], new: tuple[int, ...], order: int, seed: int
) -> None:
    volume = np.random.default_rng(seed).normal(size=old)
    found = interpolate(volume, new, order)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, zoomed(volume, new, order), atol=1e-12)


@pytest.mark.parametrize("shape", [(9, 40, 31), (50, 20, 33)])
def test_single_precision_is_enough_for_images(shape: tuple[int, ...]) -> None:
    volume = np.random.default_rng(1).normal(1000, 300, (21, 30, 44)).astype(np.float32)
    found = interpolate(volume, shape, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, zoomed(volume, shape, 3), atol=1e-5 * 2500)


def test_slices_of_a_transposed_volume_are_interpolated_alike() -> None:
    volume = np.arange(24.0).reshape(2, 3, 4)
    found = interpolate(volume.transpose(2, 0, 1), (5, 2, 6), 3)
    np.testing.assert_allclose(found, zoomed(volume.transpose(2, 0, 1), (5, 2, 6), 3), atol=1e-12)


def test_the_weights_of_one_new_position_add_up_to_one() -> None:
    for order in (1, 3):
        weights = axis_weights(7, 12, order)  # type: ignore[arg-type]
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        assert not weights.flags.writeable  # it is shared


def test_the_nearest_of_two_equally_near_is_the_upper_one() -> None:
    assert nearest(4, 2).tolist() == [1, 3]  # centres at 0.5 and 2.5
    assert nearest(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


def test_neighbours_beyond_the_edge_are_the_edge() -> None:
    place = neighbours(2, 4)  # centres at -0.25, 0.25, 0.75, 1.25
    assert place.low.tolist() == [0, 0, 0, 1]
    assert place.high.tolist() == [0, 1, 1, 1]
    assert place.low_weight.tolist() == [0.25, 0.75, 0.25, 0.75]
    assert place.high_weight.tolist() == [0.75, 0.25, 0.75, 0.25]
