"""Where voxels lie, in files of any orientation."""

import numpy as np
import pytest

from client.dataset.nifti import Grid
from client.viewer.places import part_of, position_mm


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([-1.0, -2.0, 3.0, 1.0]),
        np.array([[0, 0, 3.0, -7], [-1.0, 0, 0, 5], [0, 2.0, 0, 1], [0, 0, 0, 1]]),
        np.array([[0.8, -0.6, 0, 4], [0.6, 0.8, 0, 5], [0, 0, -2.0, 6], [0, 0, 0, 1]]),
    ],
)
def test_a_part_of_a_grid_lies_where_the_whole_says(affine):
    grid = Grid(affine, (9, 5, 4))
    depth, height, width = grid.shape_zyx
    part = part_of(grid, (1, 1, 2), (depth - 1, height - 2, width - 1))
    assert part.shape_zyx == (depth - 1, height - 2, width - 2)
    assert position_mm(part, (0, 0, 0)) == pytest.approx(position_mm(grid, (1, 1, 2)))
    assert position_mm(part, (1, 2, 1)) == pytest.approx(position_mm(grid, (2, 3, 3)))


def test_a_position_is_millimetres_to_the_right_front_and_top():
    grid = Grid(
        np.array([[-1.0, 0, 0, 90], [0, -2.0, 0, 80], [0, 0, 3.0, -70], [0, 0, 0, 1]]), (9, 5, 4)
    )
    assert position_mm(grid, (0, 0, 0)) == (82.0, 72.0, -70.0)  # the file's last in x and in y
    assert position_mm(grid, (1, 0, 2)) == (84.0, 72.0, -67.0)
