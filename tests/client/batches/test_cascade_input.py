"""The first stage's labels become channels, spoilt as its predictions may be."""

import numpy as np
import pytest
import torch

from client.batches.augmentation import CascadeDrawn
from client.batches.cascade_input import cascade_channels, operate


def nothing(n_labels: int) -> CascadeDrawn:
    return CascadeDrawn(
        order=np.arange(n_labels)[None],
        operator=np.zeros((1, n_labels), np.int64),
        radius=np.ones((1, n_labels), np.float32),
        removed=np.full((1, n_labels), np.nan, np.float32),
        max_fraction=0.15,
    )


def test_one_channel_per_label_in_the_order_of_the_values() -> None:
    previous = torch.tensor([[0, 4], [2, 4]], dtype=torch.uint8)
    channels = cascade_channels(previous, (4, 2), nothing(2), 0)
    assert channels.dtype == torch.float32
    assert channels.tolist() == [[[0, 1], [0, 1]], [[0, 0], [1, 0]]]
    assert torch.equal(channels, cascade_channels(previous, (4, 2), None, 0))


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("none", [0, 0, 1, 1, 1, 0, 1, 0, 0]),
        ("dilate", [0, 1, 1, 1, 1, 1, 1, 1, 0]),
        ("erode", [0, 0, 0, 1, 0, 0, 0, 0, 0]),
        ("close", [0, 0, 1, 1, 1, 1, 1, 0, 0]),
        ("open", [0, 0, 1, 1, 1, 0, 0, 0, 0]),
    ],
)
def test_operators_on_a_row(operator: str, expected: list[int]) -> None:
    row = np.array([[0, 0, 1, 1, 1, 0, 1, 0, 0]], np.bool_)
    assert operate(row, operator, 1.0).astype(int).tolist() == [expected]


def test_the_ball_holds_the_voxels_at_its_radius() -> None:
    mask = np.zeros((9, 9, 9), np.bool_)
    mask[4, 4, 4] = True
    # 1 voxel, 6 at distance 1, 12 at root 2, 8 at root 3, 6 at 2
    sizes = [int(operate(mask, "dilate", radius).sum()) for radius in (1, 1.5, 1.8, 2)]
    assert sizes == [7, 19, 27, 33]


def test_borders_neither_erode_nor_vanish() -> None:
    full = np.ones((4, 4), np.bool_)
    for operator in ("dilate", "erode", "close", "open"):
        assert operate(full, operator, 3.0).all()
        assert not operate(~full, operator, 3.0).any()


def test_what_a_label_gains_the_others_lose() -> None:
    previous = torch.tensor([[1, 1, 2, 2, 0]], dtype=torch.uint8)
    drawn = nothing(2)
    drawn.operator[0, 0] = 1  # dilate the first
    channels = cascade_channels(previous, (1, 2), drawn, 0)
    assert channels.tolist() == [[[1, 1, 1, 0, 0]], [[0, 0, 0, 1, 0]]]


def test_a_small_component_goes_and_a_large_one_stays() -> None:
    previous = torch.zeros(10, 10, dtype=torch.uint8)
    previous[:5, :5] = 1  # a quarter of the patch: more than 15 %
    previous[8, 8] = 1
    previous[9, 9] = 1  # touches the one before at a corner: the same component
    drawn = nothing(1)
    drawn.removed[0, 0] = 0.99
    left = cascade_channels(previous, (1,), drawn, 0)[0]
    assert float(left.sum()) == 25
    assert left[:5, :5].all()


def test_the_number_drawn_chooses_the_component() -> None:
    previous = torch.tensor([[1, 0, 1, 0, 1, 0, 0, 0, 0, 0]], dtype=torch.uint8)
    drawn = nothing(1)
    for number, kept in ((0.0, [2, 4]), (0.5, [0, 4]), (0.99, [0, 2])):
        drawn.removed[0, 0] = number
        left = cascade_channels(previous, (1,), drawn, 0)
        assert left[0, 0].nonzero().ravel().tolist() == kept
