"""Interpolation of a volume axis by axis: exact, and by matrix products instead of voxel by voxel.

A spline is separable: what it does along one axis is a matrix that depends only on the two sizes.
The matrix is read off scipy's own spline, boundary handling included, by showing it unit vectors;
so the result is scipy's `zoom(mode="nearest", grid_mode=True)` up to rounding, in a tenth of its
time. Coordinates are aligned at voxel centres and edges are repeated.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Order = Literal[0, 1, 3]
F = TypeVar("F", np.float32, np.float64)
V = TypeVar("V", bound=np.generic)

KEPT_MATRICES: Final = 64  # of at most 2 MiB; a data set has few pairs of sizes


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The two old positions along one axis between which each new position lies."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    low_weight: NDArray[np.float64]
    high_weight: NDArray[np.float64]


def interpolate(volume: NDArray[F], shape: tuple[int, ...], order: Order) -> NDArray[F]:
    """Return the volume at another number of voxels per axis, in its own precision.

    Args:
        volume: any number of axes.
        shape: wanted size of every axis.
        order: 0 takes the nearest voxel, 1 is linear, 3 a cubic spline, which may overshoot.

    Returns:
        `volume` itself when the shape does not change.
    """
    growth = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    for axis in np.argsort(growth, kind="stable"):  # shrinking first leaves less to do
        volume = _along(volume, int(axis), shape[axis], order)
    return volume


def nearest(old: int, new: int) -> NDArray[np.intp]:
    """Return for each of `new` positions the nearest of `old` ones; halves go up."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    positions: NDArray[np.intp] = np.clip(np.floor(centres + 0.5).astype(np.intp), 0, old - 1)
    return positions


def neighbours(old: int, new: int) -> Neighbours:
    """Return between which of `old` positions each of `new` ones lies, and the linear weights.

    Beyond the edge both are the edge and keep their two weights: scipy adds them up one by one.
    """
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    below = np.floor(centres)
    low, high = (np.clip(side.astype(np.intp), 0, old - 1) for side in (below, below + 1))
    return Neighbours(low, high, 1 - (centres - below), centres - below)


@lru_cache(maxsize=KEPT_MATRICES)
def axis_weights(old: int, new: int, order: Literal[1, 3]) -> NDArray[np.float64]:
    """Return the matrix (new, old) that interpolates along one axis; read-only."""
    weights = np.eye(old)
    if new != old:
        weights = ndimage.zoom(weights, (new / old, 1), order=order, mode="nearest", grid_mode=True)
    weights.setflags(write=False)
    return weights


def _along(volume: NDArray[F], axis: int, new: int, order: Order) -> NDArray[F]:
    old = volume.shape[axis]
    if new == old:
        return volume
    if order == 0:
        return np.take(volume, nearest(old, new), axis)
    weights = axis_weights(old, new, order).astype(volume.dtype)
    before, after = volume.shape[:axis], volume.shape[axis + 1 :]
    product: NDArray[F]
    if after:
        product = np.matmul(weights, volume.reshape(*before, old, -1))
    else:
        product = np.matmul(volume, weights.T)
    return product.reshape(*before, new, *after)
