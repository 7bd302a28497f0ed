"""Literals were printed by batchgenerators 0.25.5 (`resize_segmentation`, "largest") and nnunetv2
2.8.1 (`resample_data_or_seg`, across slices); the law for "half" is against scipy's zoom.
"""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from client.preparation import label_shares
from client.preparation.label_shares import Decision, interpolate_labels, majority_along

SHAPES = st.tuples(*[st.integers(1, 12)] * 3)


@settings(max_examples=80)
@given(SHAPES, SHAPES, st.integers(2, 5), st.integers(0, 99))
def test_half_is_decided_by_the_same_last_bit_as_in_scipy(
    old: tuple[int, int, int], new: tuple[int, int, int], n_labels: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, n_labels, old).astype(np.uint8)
    factors = [after / before for after, before in zip(new, old, strict=True)]
    expected = np.zeros(new, np.uint8)
    for value in range(n_labels):
        mask = (labels == value).astype(np.float64)
        share = ndimage.zoom(mask, factors, order=1, mode="nearest", grid_mode=True)
        expected[share >= 0.5] = value
    np.testing.assert_array_equal(interpolate_labels(labels, new, 1, "half"), expected)


@pytest.mark.parametrize(
    ("labels", "shape", "expected"),
    [
        ([[[0, 0, 1, 1, 2, 3, 3, 0]]], (1, 1, 4), [[[0, 1, 3, 0]]]),
        (
            [[[0, 0, 1, 1, 2, 3, 3, 0]]],
            (1, 1, 11),
            [[[0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 0]]],
        ),
        ([[[1, 2], [3, 4]]], (1, 1, 1), [[[4]]]),  # four quarters: the nearest voxel decides
        ([[[3, 1], [1, 1]], [[2, 2], [2, 3]]], (1, 1, 1), [[[1]]]),  # nearest is 3, but it lost
        (
            [[[-1, 0, 1, 4, 4]], [[2, 2, 1, 4, -1]]],
            (3, 1, 7),
            [[[-1, 0, 0, 1, 4, 4, 4]], [[2, 2, 2, 1, 4, 4, -1]], [[2, 2, 2, 1, 4, 4, -1]]],
        ),
    ],
)
def test_the_largest_share_wins_and_the_nearest_voxel_breaks_a_tie(
    labels: list[list[list[int]]], shape: tuple[int, int, int], expected: list[list[list[int]]]
) -> None:
    found = interpolate_labels(np.array(labels, np.int16), shape, 1, "largest")
    assert found.tolist() == expected


def test_order_zero_takes_the_nearest_label() -> None:
    labels = np.array([[[1, 7, 2]]], np.uint8)
    assert interpolate_labels(labels, (1, 1, 5), 0, "half").tolist() == [[[1, 1, 7, 2, 2]]]


@pytest.mark.parametrize(
    ("n_slices", "expected"),
    [
        (2, [[0, 0], [0, 0]]),  # always half and half, or nothing in common
        (8, [[1, 1], [1, 1], [2, 2], [2, 2], [0, 2], [0, 2], [3, 3], [3, 3]]),
    ],
)
def test_across_slices_more_than_half_is_needed(n_slices: int, expected: list[list[int]]) -> None:
    labels = np.array([[[1, 1]], [[2, 2]], [[0, 2]], [[3, 3]]], np.uint8)
    assert majority_along(labels, n_slices, axis=0)[:, 0].tolist() == expected


@pytest.mark.parametrize("decision", ["half", "largest"])
def test_a_head_of_many_labels_is_decided_part_by_part(
    decision: Decision, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.random.default_rng(0).integers(0, 90, (9, 8, 7)).astype(np.uint8)
    whole = interpolate_labels(labels, (13, 12, 11), 1, decision)
    monkeypatch.setattr(label_shares, "SHARES", 1000)
    np.testing.assert_array_equal(interpolate_labels(labels, (13, 12, 11), 1, decision), whole)


def test_the_memory_does_not_grow_with_the_number_of_labels() -> None:
    labels = np.random.default_rng(0).integers(0, 250, (40, 40, 40)).astype(np.uint8)
    tracemalloc.start()
    interpolate_labels(labels, (60, 60, 60), 1, "largest")  # 250 shares of each would be 430 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20
