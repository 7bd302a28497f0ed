"""The way back from the network's grid to the image's, slab by slab.

What `preprocess.restore` does to whole arrays, for planes that arrive one after the other:
along z an image plane needs the two network planes beside it, so only a few are held.
"""

from collections.abc import Iterator
from math import prod
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from client.preparation.interpolation import Order, interpolate, nearest, neighbours
from client.preparation.preprocess import Geometry
from client.preparation.resample import separate_axis
from common.axes import Shape

SLAB_BYTES: Final = 2**23  # of image planes that are made together
Slabs = Iterator[NDArray[np.float32]]


def restored_slabs(slabs: Slabs, geometry: Geometry) -> Slabs:
    """Bring consecutive slabs to the grid of the cropped image.

    Args:
        slabs: axes (output, z, y, x) with the image's axis order and the network's spacing, from
            the first plane to the last.
        geometry: of the prepared case.

    Yields:
        Axes (output, z, y, x); together the crop's shape. The slabs themselves where the network
        has the image's spacing.
    """
    old, new = network_shape_zyx(geometry), geometry.cropped_shape
    if old == new:
        yield from slabs
        return
    orders = _orders(geometry)
    spread = (_spread(plane, new, orders) for slab in slabs for plane in _pieces(slab, new))
    yield from _along_z(spread, old[0], new[0], linear=orders[0] == 1)


def network_shape_zyx(geometry: Geometry) -> Shape:
    """Return the voxels of the prepared case along the image's axes (z, y, x)."""
    z, y, x = (geometry.network_shape[geometry.transpose.index(axis)] for axis in range(3))
    return z, y, x


def _orders(geometry: Geometry) -> tuple[Order, Order, Order]:
    """Return the order of the spline along (z, y, x); across thick slices it is another one."""
    rule, transpose = geometry.resampling, geometry.transpose
    z, y, x = (geometry.spacing_mm[axis] for axis in transpose)
    thick = separate_axis((z, y, x), geometry.network_spacing_mm, rule.thick_slices_ratio)
    order: list[Order] = [rule.probability_order] * 3
    if thick is not None:
        order[transpose[thick]] = rule.across_thick_slices_order
    return order[0], order[1], order[2]


def _pieces(slab: NDArray[np.float32], new: Shape) -> Slabs:
    """Cut a slab so that a piece is small when it has the image's planes."""
    step = max(1, SLAB_BYTES // (4 * len(slab) * prod(new[1:])))
    for first in range(0, slab.shape[1], step):
        yield slab[:, first : first + step]


def _spread(
    slab: NDArray[np.float32], new: Shape, orders: tuple[Order, Order, Order]
) -> NDArray[np.float32]:
    """Interpolate within the planes."""
    _, height, width = new
    if orders[1:] == (1, 1):  # torch's way of it is four times as fast
        planes = torch.from_numpy(np.ascontiguousarray(slab))
        return functional.interpolate(planes, (height, width), mode="bilinear").numpy()
    wide = interpolate(slab, (*slab.shape[:3], width), orders[2])
    return interpolate(wide, (*slab.shape[:2], height, width), orders[1])


def _along_z(pieces: Slabs, old: int, new: int, *, linear: bool) -> Slabs:
    """Interpolate across planes as soon as those that are needed are there."""
    low, high, weight_low, weight_high = _z_weights(old, new, linear=linear)
    held: NDArray[np.float32] | None = None
    first, made = 0, 0  # number of the first held plane, and of image planes that have left
    for piece in pieces:
        held = piece if held is None else np.concatenate((held, piece), axis=1)
        ready = int(np.searchsorted(high, first + held.shape[1]))
        step = max(1, piece.shape[1])
        for start in range(made, ready, step):
            rows = slice(start, min(start + step, ready))
            below = held[:, low[rows] - first] * weight_low[rows]
            yield below + held[:, high[rows] - first] * weight_high[rows] if linear else below
        made = ready
        needed = int(low[made]) if made < new else old
        n_done = min(needed - first, held.shape[1])  # what is needed may not have come yet
        held, first = held[:, n_done:], first + n_done


def _z_weights(
    old: int, new: int, *, linear: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Return the two planes that make each new one and their weights, shaped for (o, z, y, x)."""
    if not linear:
        only, ones = nearest(old, new), np.ones((new, 1, 1), np.float32)
        return only, only, ones, ones
    found = neighbours(old, new)
    low, high = (
        side.astype(np.float32)[:, None, None] for side in (found.low_weight, found.high_weight)
    )
    return found.low, found.high, low, high
