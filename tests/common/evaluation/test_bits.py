import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Mask
from common.evaluation.bits import (
    WORD,
    add_both_ways_along_z,
    both_ways_along_x,
    both_ways_along_y,
    count,
    eroded,
    moved_along_x,
    pack,
    positions,
    unpack,
)

SHAPE = (3, 4, 130)  # rows of two whole words and two voxels more
masks = arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(value=False))


def line(*voxels: int) -> Mask:
    mask = np.zeros((1, 1, 130), np.bool_)
    mask[0, 0, list(voxels)] = True
    return mask


def along_x(bits: np.ndarray) -> list[int]:
    return [x for _, _, x in positions(bits).tolist() if x < 130]


def test_a_voxel_is_one_bit_of_its_word() -> None:
    assert pack(line(0, 3, 64, 129)).tolist() == [[[0b1001, 1, 2]]]


@given(masks)
def test_unpacking_gives_the_mask_back_with_its_rows_filled_up(mask: Mask) -> None:
    rows = unpack(pack(mask))
    assert rows.shape == (3, 4, 3 * WORD)
    assert np.array_equal(rows[..., :130], mask)
    assert not rows[..., 130:].any()


@given(masks)
def test_packing_loses_no_voxel(mask: Mask) -> None:
    bits = pack(mask)
    np.testing.assert_array_equal(positions(bits), np.argwhere(mask))
    assert count(bits) == mask.sum()


@pytest.mark.parametrize("step", [1, 5, 63, 64, 65, 128, 129, 130, 500])
def test_a_move_along_x_crosses_words(step: int) -> None:
    bits = pack(line(0, 60, 64, 129))
    expected = [x + step for x in (0, 60, 64, 129) if x + step < 130]
    assert along_x(moved_along_x(bits, step)) == expected
    expected = [x - step for x in (0, 60, 64, 129) if x - step >= 0]
    assert along_x(moved_along_x(bits, -step)) == expected


def test_moves_both_ways_are_united() -> None:
    assert along_x(both_ways_along_x(pack(line(64)), 3)) == [61, 67]
    mask = np.zeros((1, 7, 1), np.bool_)
    mask[0, 2] = True
    assert positions(both_ways_along_y(pack(mask), 2)).tolist() == [[0, 0, 0], [0, 4, 0]]
    mask = np.zeros((7, 1, 1), np.bool_)
    mask[2] = True
    union = pack(np.zeros_like(mask))
    add_both_ways_along_z(union, pack(mask), 2)
    assert positions(union).tolist() == [[0, 0, 0], [4, 0, 0]]


@pytest.mark.parametrize("step", [4, 7, 100])
def test_a_move_beyond_the_array_leaves_nothing(step: int) -> None:
    full = pack(np.ones((4, 4, 4), np.bool_))
    assert not both_ways_along_y(full, step).any()
    union = np.zeros_like(full)
    add_both_ways_along_z(union, full, step)
    assert not union.any()


@given(masks)
def test_erosion_keeps_voxels_with_six_neighbours(mask: Mask) -> None:
    padded = np.pad(mask, 1)
    expected = mask.copy()
    for axis in range(3):
        for step in (-1, 1):
            expected &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    np.testing.assert_array_equal(positions(eroded(pack(mask))), np.argwhere(expected))


def test_the_word_has_as_many_bits_as_its_type() -> None:
    assert pack(line(0)).dtype.itemsize * 8 == WORD
