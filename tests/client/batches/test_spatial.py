"""Where a turned, scaled or deformed patch looks, and what it sees there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from client.batches.spatial import (
    Positions,
    bounding_box,
    deformation,
    positions,
    reach,
    resample,
    resample_labels,
)
from client.batches.transforms import normal_noise

CPU = torch.device("cpu")
IDENTITY = np.eye(3)
QUARTER = np.array([[0.0, -1.0], [1.0, 0.0]])  # a patch's row looks along the case's column


def places(size: tuple[int, ...], matrix: np.ndarray, origin: tuple[int, ...]) -> Positions:
    return positions(size, matrix, origin, (), CPU)


def test_an_unturned_patch_reaches_its_own_voxels() -> None:
    assert reach((4, 5, 1), IDENTITY, (0, 0, 0)) == [(0, 4), (0, 5), (0, 1)]


def test_a_scaled_or_deformed_patch_reaches_further() -> None:
    # centre 1.5: from 1.5 - 3 to 1.5 + 3, of which the voxels -2 to 5 are needed
    assert reach((4,), np.array([[2.0]]), (0,)) == [(-2, 6)]
    assert reach((4,), np.array([[1.0]]), (0.25,)) == [(-1, 5)]


def test_a_patch_that_is_turned_by_a_quarter_reaches_with_its_long_side() -> None:
    assert reach((2, 4), QUARTER, (0, 0)) == [(-1, 3), (1, 3)]


def test_positions_are_counted_from_the_box() -> None:
    first, second = places((2, 3), np.eye(2), (-1, 1))
    assert first.tolist() == [[1, 1, 1], [2, 2, 2]]
    assert second.tolist() == [[-1, 0, 1], [-1, 0, 1]]


def test_a_quarter_turn_moves_every_voxel_to_its_place() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert resample(image[None], places((2, 2), QUARTER, (0, 0)))[0].tolist() == [[3, 1], [4, 2]]
    labels = image.to(torch.uint8)
    turned = resample_labels(labels[None], places((2, 2), QUARTER, (0, 0)))
    assert turned[0].tolist() == [[3, 1], [4, 2]]


def test_between_voxels_images_are_linear_and_zero_outside() -> None:
    row = torch.tensor([[4.0, 8.0]])
    where = (torch.tensor([-1.0, -0.5, 0.25, 1.5, 2.0]),)
    # one axis is no image for torch: give it a second one
    seen = resample(row[:, None], (torch.zeros(1, 5), where[0][None]))
    assert seen.ravel().tolist() == pytest.approx([0, 2, 5, 4, 0])


def test_a_volume_is_resampled_along_three_axes_alike() -> None:
    z, y, x = torch.meshgrid(*[torch.arange(6.0)] * 3, indexing="ij")
    ramp = (100 * z + 10 * y + x)[None]
    halved = resample(ramp, places((2, 2, 2), 0.5 * np.eye(3), (-2, -2, -2)))
    # centre 2.5 of the box, the patch's voxels at 2.25 and 2.75 along each axis
    corners = [halved[0, 0, 0, 0].item(), halved[0, 0, 1, 0].item(), halved[0, 1, 1, 1].item()]
    assert corners == pytest.approx([249.75, 254.75, 305.25], abs=1e-3)


def test_the_label_with_the_largest_share_wins_where_three_meet() -> None:
    labels = torch.tensor([[[7, 9], [9, 3]]], dtype=torch.uint8)
    # in the middle 9 has one half, 7 and 3 a quarter each; near a corner its own label wins
    where = (torch.tensor([[0.5, 0.1]]), torch.tensor([[0.5, 0.1]]))
    assert resample_labels(labels, where).ravel().tolist() == [9, 7]


def test_foreground_ends_half_a_voxel_beyond_its_last_one() -> None:
    labels = torch.full((1, 1, 2), 5, dtype=torch.uint8)
    along = torch.tensor([[-0.6, -0.4, 0.5, 1.4, 1.6]])
    assert resample_labels(labels, (torch.zeros(1, 5), along)).ravel().tolist() == [0, 5, 5, 5, 0]


def test_a_box_without_foreground_stays_background() -> None:
    empty = torch.zeros((2, 4, 4), dtype=torch.uint8)
    assert not resample_labels(empty, places((3, 3), QUARTER, (0, 0))).any()


def random_labels(seed: int, shape: tuple[int, ...]) -> Tensor:
    labels = np.random.default_rng(seed).integers(0, 4, shape) * 3
    labels[tuple(slice(n // 2, None) for n in shape)] = 0
    return torch.from_numpy(labels.astype(np.uint8))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(-180, 180), st.floats(0.5, 2), st.booleans())
def test_no_label_is_made_and_the_same_labels_are_seen_in_part_and_whole(
    seed: int, degrees: float, scale: float, deformed: bool
) -> None:
    maps = random_labels(seed, (2, 9, 8))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    noise = normal_noise(seed, CPU)
    summands = deformation((7, 6), 0.2, (0.7, 0.6), noise) if deformed else ()
    where = positions((7, 6), turn * scale, (-1, -1), summands, CPU)
    moved = resample_labels(maps, where)
    assert set(moved.unique().tolist()) <= set(maps.unique().tolist()) | {0}
    # the argmax over all shares, calculated for every voxel of the patch
    shares = torch.stack([resample((maps == value).float(), where) for value in (3, 6, 9)])
    shares = torch.cat([1 - shares.sum(dim=0, keepdim=True), shares])
    assert torch.equal(moved, (3 * shares.argmax(dim=0)).to(torch.uint8))


def test_a_deformation_is_smooth_and_as_large_as_drawn() -> None:
    fields = deformation((16, 20), 0.25, (3.0, 1.5), normal_noise(0, CPU))
    assert [float(field.abs().max()) for field in fields] == pytest.approx([3, 1.5])
    steps = fields[0].diff(dim=0).abs().max()
    assert float(steps) < 1.6  # neighbours 4 voxels of smoothness apart cannot differ by more
    assert not torch.equal(fields[0], fields[1] * 2)


def test_the_bounding_box_of_a_mask() -> None:
    mask = torch.zeros((4, 5), dtype=torch.bool)
    assert bounding_box(mask) is None
    mask[1, 2] = mask[3, 2] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3))


def test_of_a_hundred_labels_the_largest_share_wins() -> None:
    row = torch.arange(101, dtype=torch.uint8)[None, None]  # voxel i has label i
    along = torch.tensor([[0.6, 41.4, 41.6, 99.7]])
    assert resample_labels(row, (torch.zeros(1, 4), along)).ravel().tolist() == [1, 41, 42, 100]


def test_a_tie_with_the_background_is_the_backgrounds() -> None:
    labels = torch.tensor([[[0, 8]]], dtype=torch.uint8)
    assert resample_labels(labels, (torch.zeros(1, 1), torch.tensor([[0.5]]))).item() == 0
