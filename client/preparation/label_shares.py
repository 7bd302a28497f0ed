"""Linear interpolation of label maps: how much of each label is in a voxel, and who gets it.

Between voxels of one label nothing is to be computed; only the few voxels whose neighbours
disagree are. The shares are summed in the order in which scipy sums them, because ties between
labels are exact and are decided by the last bit.

Two decisions are published. "half": a label that holds at least half takes the voxel, the higher
value wins a tie, and where none holds half the voxel becomes background (nnU-Net 1.7.1 and
batchgenerators up to 0.25.1). "largest": the label with the largest share takes the voxel; in a tie
the nearest voxel's label wins if it is among them, else the lowest value (what nnunetv2 2.8.1
does with batchgenerators 0.25.5). They differ in ties and where three labels meet.
"""

from itertools import product
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from client.preparation.interpolation import Neighbours, nearest, neighbours
from common.axes import Shape

SHARES: Final = 2**22  # held at one time, 32 MiB: a head may have a hundred labels
Decision = Literal["half", "largest"]
V = TypeVar("V", np.uint8, np.int16)
Positions = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


def interpolate_labels(
    labels: NDArray[V], shape: Shape, order: Literal[0, 1], decision: Decision
) -> NDArray[V]:
    """Return a label map at another number of voxels per axis.

    Args:
        labels: whole numbers, axes (a, b, c).
        shape: wanted number of voxels along (a, b, c).
        order: 0 takes the nearest voxel's label; 1 interpolates the mask of every label.
        decision: which label takes a voxel that several share.

    Returns:
        The labels that occur, and with "half" perhaps 0.
    """
    sizes = list(zip(labels.shape, shape, strict=True))
    closest: NDArray[V] = labels[np.ix_(*(nearest(old, new) for old, new in sizes))]
    if order == 0:
        return closest
    axes = [neighbours(old, new) for old, new in sizes]
    where = _mixed(labels, axes)
    values = np.unique(labels)
    decide = _half if decision == "half" else _largest
    step = max(1, SHARES // len(values))
    for first in range(0, where[0].size, step):
        a, b, c = (position[first : first + step] for position in where)
        shares = _shares(labels, values, axes, (a, b, c))
        closest[a, b, c] = decide(shares, values, closest[a, b, c])
    return closest


def majority_along(labels: NDArray[V], n_slices: int, axis: int) -> NDArray[V]:
    """Interpolate every label's mask along one axis; more than half takes the voxel, else 0.

    Source: nnunetv2 2.8.1, `resample_data_or_seg` with order_z=1, where a tie is nobody's.
    """
    place = neighbours(labels.shape[axis], n_slices)
    low, high = np.take(labels, place.low, axis), np.take(labels, place.high, axis)
    along = [-1 if other == axis else 1 for other in range(labels.ndim)]
    takes_low = (place.low_weight > 0.5).reshape(along)
    takes_high = (place.high_weight > 0.5).reshape(along)
    undecided: NDArray[V] = np.where(takes_high, high, low.dtype.type(0))
    decided: NDArray[V] = np.where((low == high) | takes_low, low, undecided)
    return decided


def _mixed(labels: NDArray[V], axes: list[Neighbours]) -> Positions:
    """Return the new voxels whose up to eight neighbours are not all of one label."""
    lowest = highest = labels
    for axis, place in enumerate(axes):
        lowest = np.minimum(np.take(lowest, place.low, axis), np.take(lowest, place.high, axis))
        highest = np.maximum(np.take(highest, place.low, axis), np.take(highest, place.high, axis))
    a, b, c = np.nonzero(lowest != highest)
    return a, b, c


def _shares(
    labels: NDArray[V], values: NDArray[V], axes: list[Neighbours], where: Positions
) -> NDArray[np.float64]:
    """Return each label's share, axes (label, voxel), added up corner by corner as scipy does."""
    shares = np.zeros((len(values), where[0].size))
    rows = np.searchsorted(values, labels).astype(np.uint8)
    voxels = np.arange(where[0].size)
    for upper in product((False, True), repeat=3):
        places, weight = [], np.ones(where[0].size)
        for place, position, high in zip(axes, where, upper, strict=True):
            places.append((place.high if high else place.low)[position])
            weight *= (place.high_weight if high else place.low_weight)[position]
        shares[rows[tuple(places)], voxels] += weight
    return shares


def _half(shares: NDArray[np.float64], values: NDArray[V], closest: NDArray[V]) -> NDArray[V]:
    decided = np.zeros_like(closest)
    for share, value in zip(shares, values, strict=True):
        decided[share >= 0.5] = value
    return decided


def _largest(shares: NDArray[np.float64], values: NDArray[V], closest: NDArray[V]) -> NDArray[V]:
    share_of_closest = shares[np.searchsorted(values, closest), np.arange(closest.size)]
    winner = values[shares.argmax(axis=0)]  # the first of several, which is the lowest value
    decided: NDArray[V] = np.where(share_of_closest == shares.max(axis=0), closest, winner)
    return decided
