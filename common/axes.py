"""One alias per array concept, with its axes named.

Every image is first brought into RAS+ orientation and stored slowest axis first, so that
``z`` runs from inferior to superior, ``y`` from posterior to anterior and ``x`` from left to
right. Spacings and shapes follow the same order, as printed plans do.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

SpacingMm: TypeAlias = tuple[float, float, float]
"""Voxel size in mm along (z, y, x)."""

Shape: TypeAlias = tuple[int, int, int]
"""Number of voxels along (z, y, x)."""

Image: TypeAlias = NDArray[np.float32]
"""Intensities, axes (channel, z, y, x)."""

LabelMap: TypeAlias = NDArray[np.uint8]
"""One label value per voxel, axes (z, y, x)."""

Mask: TypeAlias = NDArray[np.bool_]
"""Truth value per voxel, axes (z, y, x)."""

RegionMasks: TypeAlias = NDArray[np.bool_]
"""Truth value per region and voxel, axes (region, z, y, x); regions may overlap."""

Probabilities: TypeAlias = NDArray[np.float32]
"""Probability per output channel and voxel, axes (output, z, y, x), range [0, 1]."""

Weights: TypeAlias = Mapping[str, NDArray[Any]]
"""Tensors of a model by parameter name; they may lie in a file until they are looked at."""


def three(values: Iterable[T]) -> tuple[T, T, T]:
    """Return one value per axis as the type checker wants it.

    Raises:
        ValueError: for any other number of values.
    """
    first, second, third = values
    return first, second, third


def in_volume(patch_size: tuple[int, ...]) -> Shape:
    """Return a patch of two or three axes as part of a volume: a slice is one voxel thick."""
    return three((1,) * (3 - len(patch_size)) + patch_size)


def times(sizes: Iterable[object]) -> str:
    """Return sizes as people write them, for example ``40x56x40``."""
    return "x".join(map(str, sizes))
