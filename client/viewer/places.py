"""Where the voxels of a RAS+ image lie: in the file's own index, in millimetres, in a part."""

import numpy as np

from client.dataset.nifti import Grid
from common.axes import Shape, three

AXES = {"S": 0, "I": 0, "A": 1, "P": 1, "R": 2, "L": 2}  # of (z, y, x), by the code of a direction
BACKWARDS = "LPI"


def file_index(grid: Grid, voxel: Shape) -> tuple[int, int, int]:
    """Return the index along the axes of the file of a voxel (z, y, x) of the RAS+ image."""
    return three(
        size - 1 - voxel[AXES[code]] if code in BACKWARDS else voxel[AXES[code]]
        for code, size in zip(grid.axis_codes, grid.shape, strict=True)
    )


def position_mm(grid: Grid, voxel: Shape) -> tuple[float, float, float]:
    """Return where a voxel (z, y, x) of the RAS+ image lies: mm to the right, front and top."""
    return three((grid.affine @ [*file_index(grid, voxel), 1.0])[:3].tolist())


def part_of(grid: Grid, first: Shape, last: Shape) -> Grid:
    """Return the grid of a part of the image.

    Args:
        grid: of the whole image.
        first: the lowest voxel (z, y, x) of the RAS+ image that belongs to the part.
        last: the highest one.
    """
    ends = np.sort([file_index(grid, first), file_index(grid, last)], axis=0)
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ [*ends[0], 1.0])[:3]
    return Grid(affine, three((ends[1] - ends[0] + 1).tolist()))
