"""Where the tiles of a sliding window lie, and how much each of their voxels counts.

Source: nnU-Net inference: tiles of the training patch, half a patch apart and evenly spread;
Gaussian weight of sigma patch / 8 with its maximum scaled to 1. nnunetv2 2.8.1 places its tiles
alike; its weights differ by a factor, and in the corners by their rounding to 16 bits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.axes import Image, Shape

Slices3: TypeAlias = tuple[slice, slice, slice]
SLICES_TOGETHER: Final = 16  # of a 2D network, so that batches can be filled


@dataclass(frozen=True)
class Layer:
    """Tiles that begin at the same first voxel along the first axis, or in a few slices."""

    start: int
    stop: int
    tiles: tuple[Slices3, ...]


def tiles(shape: Shape, patch_size: Shape) -> Iterator[Slices3]:
    """Yield tiles that cover a shape not smaller than the patch, at most half a patch apart."""
    for layer in layers(shape, patch_size):
        yield from layer.tiles


def layers(shape: Shape, patch_size: Shape, slice_axis: int | None = None) -> list[Layer]:
    """Return the tiles in layers along the first axis, from its beginning to its end.

    Args:
        shape: of the image, not smaller than the patch.
        patch_size: of a tile; 1 along the slice axis.
        slice_axis: across which a 2D network takes every slice; None for a 3D network.
    """
    rows, *columns = (
        list(range(size)) if axis == slice_axis else _starts(size, patch)
        for axis, (size, patch) in enumerate(zip(shape, patch_size, strict=True))
    )
    together = SLICES_TOGETHER if slice_axis == 0 else 1
    groups = (rows[first : first + together] for first in range(0, len(rows), together))
    return [
        Layer(
            start=group[0],
            stop=group[-1] + patch_size[0],
            tiles=tuple(_tile(corner, patch_size) for corner in product(group, *columns)),
        )
        for group in groups
    ]


def gaussian_weight(patch_size: Shape) -> NDArray[np.float32]:
    """Return the weight of every voxel of a tile, maximum 1 at the centre, all positive."""
    profiles = [
        np.exp(-0.5 * ((np.arange(size) - size // 2) / (size / 8)) ** 2) for size in patch_size
    ]
    weight: NDArray[np.float32] = np.einsum("z,y,x->zyx", *profiles).astype(np.float32)
    return weight  # at least exp(-24), which float32 holds: nothing has to be replaced


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every choice of axes to flip, none first."""
    return list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))


def pad_to(image: Image, patch_size: Shape) -> tuple[Image, Slices3]:
    """Pad an image with 0 to at least the patch.

    Returns:
        The image, itself where nothing is missing, and where the original lies in it.
    """
    missing = [
        max(patch - size, 0) for size, patch in zip(image.shape[1:], patch_size, strict=True)
    ]
    before = [amount // 2 for amount in missing]
    widths = [(first, amount - first) for first, amount in zip(before, missing, strict=True)]
    z, y, x = (
        slice(first, first + size) for first, size in zip(before, image.shape[1:], strict=True)
    )
    return np.pad(image, [(0, 0), *widths]) if any(missing) else image, (z, y, x)


def _starts(size: int, patch: int) -> list[int]:
    steps = math.ceil((size - patch) / (patch / 2))
    if steps <= 0:
        return [0]
    return [round(index * (size - patch) / steps) for index in range(steps + 1)]


def _tile(corner: Sequence[int], patch_size: Shape) -> Slices3:
    z, y, x = (slice(start, start + size) for start, size in zip(corner, patch_size, strict=True))
    return z, y, x
