"""Turning, scaling and deforming a patch: where it looks in its case, and what it sees there.

One resampling does all of it, from just the part of the case that the patch looks at. Images are
interpolated linearly, as in nnunetv2 2.8.1; of the labels, each is, and the largest share wins,
so that every voxel keeps one label that was there and regions stay nested.
"""

from collections.abc import Sequence
from math import ceil, floor
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from client.batches.transforms import NormalNoise, along_axes, smoothing

Positions: TypeAlias = tuple[Tensor, ...]
"""Where each voxel of a patch looks, in voxels of a box: one tensor of the patch's shape per axis,
for the box's last axes."""


def reach(
    size: Sequence[int], matrix: NDArray[np.float64], magnitudes: Sequence[float]
) -> list[tuple[int, int]]:
    """Return what a patch looks at: first and one past the last voxel, from its first voxel on.

    Args:
        size: of the patch along the resampled axes, in voxels.
        matrix: from `augmentation.matrix_of`.
        magnitudes: largest deformation along each of these axes, in voxels.
    """
    middles = (np.array(size) - 1) / 2
    extents = np.abs(matrix) @ (middles + np.array(magnitudes))
    return [
        (floor(middle - extent), ceil(middle + extent) + 1)
        for middle, extent in zip(middles.tolist(), extents.tolist(), strict=True)
    ]


def positions(
    size: Sequence[int],
    matrix: NDArray[np.float64],
    origin: Sequence[int],
    deformation: Sequence[Tensor],
    device: torch.device,
) -> Positions:
    """Return where each voxel of a patch looks.

    Args:
        size: of the patch along the resampled axes.
        matrix: from `augmentation.matrix_of`.
        origin: of the box, counted from the patch's first voxel.
        deformation: one summand per axis, before the matrix; empty for none.
        device: where to compute.
    """
    middles = [(n - 1) / 2 for n in size]
    places = []
    for row, middle, start in zip(matrix.tolist(), middles, origin, strict=True):
        place = torch.full((1,) * len(size), middle - start, device=device)
        for axis, (factor, n) in enumerate(zip(row, size, strict=True)):
            shape = [n if other == axis else 1 for other in range(len(size))]
            steps = torch.arange(n, dtype=torch.float64) - middles[axis]
            place = place + (steps * factor).float().to(device).view(shape)
        for factor, summand in zip(row, deformation, strict=False):
            place = place + factor * summand
        places.append(place)
    return tuple(places)


def deformation(
    size: Sequence[int], width: float, magnitudes: Sequence[float], noise: NormalNoise
) -> list[Tensor]:
    """Return smooth random displacements in voxels, one tensor per axis.

    Args:
        size: of the patch along the resampled axes.
        width: of the smoothness, as a fraction of the patch.
        magnitudes: largest displacement along each axis, in voxels.
        noise: source of the randomness.
    """
    kernels = [smoothing(n, width * n) for n in size]
    fields = [along_axes(noise(tuple(size)), kernels) for _ in size]
    return [
        field * (magnitude / float(field.abs().max()))
        for field, magnitude in zip(fields, magnitudes, strict=True)
    ]


def resample(volumes: Tensor, places: Positions) -> Tensor:
    """Return what is seen at the positions, 0 outside the box.

    Args:
        volumes: axes (volume, box), float32; all are seen through the same positions.
        places: as many as the box has axes.
    """
    sizes = volumes.shape[1:]
    scaled = [(2 * place + 1) / n - 1 for place, n in zip(places, sizes, strict=True)]
    grid = torch.stack(scaled[::-1]).movedim(0, -1)  # torch wants the last axis first
    seen = grid_sample(volumes[None], grid[None], mode="bilinear", align_corners=False)
    return seen[0]


def resample_labels(maps: Tensor, places: Positions) -> Tensor:
    """Return the label with the largest share at each position; outside the box is background.

    Args:
        maps: axes (map, box), uint8.
        places: as many as the box has axes.
    """
    moved = torch.zeros((len(maps), *places[0].shape), dtype=maps.dtype, device=maps.device)
    window = _window(maps.any(dim=0), places)
    if window is None:
        return moved
    inner = tuple(place[window] for place in places)
    inside = moved[(slice(None), *window)]
    best, total = (torch.zeros(inside.shape, device=maps.device) for _ in range(2))
    for value in range(1, int(maps.max()) + 1):  # one at a time: there may be a hundred
        if (mask := maps == value).any():
            share = resample(mask.float(), inner)
            inside[share > best] = value
            best = torch.maximum(best, share)
            total += share
    inside[best <= 1 - total] = 0  # the rest is the background's, and a tie
    return moved


def _window(foreground: Tensor, places: Positions) -> tuple[slice, ...] | None:
    """Return the part of the patch that can see foreground; None if there is none.

    Tumours fill little of a patch: the rest need not be resampled.
    """
    box = bounding_box(foreground)
    if box is None:
        return None
    seen = torch.ones(places[0].shape, dtype=torch.bool, device=foreground.device)
    for place, side in zip(places, box, strict=True):
        seen &= (place > side.start - 1) & (place < side.stop)
    return bounding_box(seen)


def bounding_box(mask: Tensor) -> tuple[slice, ...] | None:
    """Return the smallest slices that hold all of a mask, None if it is empty."""
    sides = []
    for axis in range(mask.ndim):
        others = [other for other in range(mask.ndim) if other != axis]
        hits = mask.any(dim=others).nonzero()
        if len(hits) == 0:
            return None
        sides.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(sides)
