"""Distances between the surfaces of two masks, and the two definitions of HD95 in the field.

Measured once, summarised cheaply: `surface_distances` returns one record, and each definition of
HD95 is a few lines on it. The two differ: always name the one that a number came from.

The distances are exact. Masks are moved, as bits, by every offset in the order of its length; a
surface voxel has found the other surface as soon as a moved voxel meets it. Offsets that differ
only in sign share their moves, so that a few hundred bit operations settle all voxels within a few
millimetres; a KD-tree finds what is farther away.

Sources:
    Pooled: evaluation code of the BraTS 2020 winner (Isensee et al. 2020, section 2.1).
    Maximum of the directed percentiles: MONAI, `compute_hausdorff_distance`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from itertools import product
from math import hypot, isqrt
from operator import mul
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from common.axes import LabelMap, Mask, SpacingMm
from common.evaluation.bits import (
    Bits,
    add_both_ways_along_z,
    both_ways_along_x,
    both_ways_along_y,
    count,
    eroded,
    pack,
    positions,
)

Hd95: TypeAlias = Literal["pooled", "max"]
"""Which 95th percentile of the surface distances is meant; see `HD95_DEFINITIONS`."""

Box: TypeAlias = tuple[slice, ...]
"""The voxels of a box, one slice per axis."""

DistancesMm: TypeAlias = NDArray[np.float64]
Offset: TypeAlias = tuple[int, int, int]
"""Voxels along (z, y, x), none negative: it stands for all offsets that differ in sign only."""

# Measured on brain tumours (`benchmarks/metrics.py`); none changes a result.
REACH_VOXELS = 12
WORDS_PER_SEARCH = 100  # moving so many words costs as much as one search in the tree
MOVED_BYTES = 2**26  # for moved masks, of which there are about as many as reach squared


@dataclass(frozen=True)
class SurfaceDistances:
    """For every surface voxel of one mask, the distance to the nearest of the other, in mm."""

    to_prediction_mm: DistancesMm
    """One value per surface voxel of the reference; infinite when the prediction is empty."""
    to_reference_mm: DistancesMm
    """One value per surface voxel of the prediction; infinite when the reference is empty."""


def surface_distances(reference: Mask, prediction: Mask, spacing_mm: SpacingMm) -> SurfaceDistances:
    """Measure Euclidean distances between the centres of surface voxels, in both directions.

    Args:
        reference: axes (z, y, x).
        prediction: same shape as `reference`.
        spacing_mm: voxel size along (z, y, x), above 0.

    Returns:
        Distances in float64, in no order; no values from an empty mask, infinite ones towards one.
    """
    box = label_box(reference, prediction)
    return bit_distances(pack(reference[box]), pack(prediction[box]), spacing_mm)


def bit_distances(reference: Bits, prediction: Bits, spacing_mm: SpacingMm) -> SurfaceDistances:
    """Do the same for masks as bits."""
    on_reference, on_prediction = reference & ~eroded(reference), prediction & ~eroded(prediction)
    return SurfaceDistances(
        to_prediction_mm=_nearest_mm(on_reference, on_prediction, spacing_mm),
        to_reference_mm=_nearest_mm(on_prediction, on_reference, spacing_mm),
    )


def surface(mask: Mask) -> Mask:
    """Return the voxels of `mask` with at least one of the six face neighbours outside it.

    What lies outside the array is background, so a mask that touches the border has a surface
    there. An empty mask has an empty surface.
    """
    bits = pack(mask)
    on_surface = np.zeros_like(mask)
    on_surface[tuple(positions(bits & ~eroded(bits)).T)] = True
    return on_surface


def bounding_box(mask: Mask) -> Box:
    """Return the smallest box that holds every true voxel; of length 0 when there is none."""
    return label_box(mask)


def label_box(*volumes: NDArray[np.bool_] | LabelMap) -> Box:
    """Return the smallest box that holds every voxel above 0 of any of the volumes, as above."""
    # One pass over all voxels, along rows, which is where arrays are fast; the rest is small.
    planes = reduce(np.bitwise_or, (np.bitwise_or.reduce(volume, axis=2) for volume in volumes))
    rows = (_extent(planes.any(axis=1)), _extent(planes.any(axis=0)))
    inside = (np.bitwise_or.reduce(volume[rows], axis=(0, 1)) for volume in volumes)
    return (*rows, _extent(reduce(np.bitwise_or, inside)))


def hd95_pooled_mm(distances: SurfaceDistances) -> float:
    """Return the 95th percentile of the distances of both directions taken together."""
    pooled = np.concatenate([distances.to_prediction_mm, distances.to_reference_mm])
    return float(np.percentile(pooled, 95))


def hd95_max_mm(distances: SurfaceDistances) -> float:
    """Return the larger of the 95th percentiles of the two directions."""
    directed = (distances.to_prediction_mm, distances.to_reference_mm)
    return max(float(np.percentile(values, 95)) for values in directed)


HD95_DEFINITIONS: Mapping[Hd95, Callable[[SurfaceDistances], float]] = {
    "pooled": hd95_pooled_mm,
    "max": hd95_max_mm,
}


def _nearest_mm(origins: Bits, targets: Bits, spacing_mm: SpacingMm) -> DistancesMm:
    """Return the distance of every origin to the nearest target, in no order."""
    left, n_left = origins, count(origins)
    if not targets.any():
        return np.full(n_left, np.inf)
    reach_voxels = min(REACH_VOXELS, isqrt(MOVED_BYTES // targets.nbytes) - 1)
    moved, near_mm = _Moved(targets), list[DistancesMm]()
    for length_mm, offsets in _shells(spacing_mm, reach_voxels):
        if n_left * WORDS_PER_SEARCH < len(offsets) * targets.size:
            break  # so few are left that searching for each is cheaper than another shell
        left = left & ~moved.by(offsets)
        n_before, n_left = n_left, count(left)
        near_mm.append(np.full(n_before - n_left, length_mm))
    if n_left:
        tree = cKDTree(positions(targets) * spacing_mm, balanced_tree=False, compact_nodes=False)
        near_mm.append(np.asarray(tree.query(positions(left) * spacing_mm)[0]))
    return np.concatenate(near_mm) if near_mm else np.empty(0)


class _Moved:
    """A mask moved by many offsets; moves along x, then y, are made once and shared."""

    def __init__(self, bits: Bits) -> None:
        self._bits = bits
        self._along_x: dict[int, Bits] = {}
        self._along_xy: dict[tuple[int, int], Bits] = {}

    def by(self, offsets: Iterable[Offset]) -> Bits:
        """Return the union of the mask moved by every offset, each with all signs."""
        union = np.zeros_like(self._bits)
        for z, y, x in offsets:
            if x not in self._along_x:
                self._along_x[x] = both_ways_along_x(self._bits, x)
            if (y, x) not in self._along_xy:
                self._along_xy[y, x] = both_ways_along_y(self._along_x[x], y)
            add_both_ways_along_z(union, self._along_xy[y, x], z)
        return union


@cache
def _shells(
    spacing_mm: SpacingMm, reach_voxels: int
) -> tuple[tuple[float, tuple[Offset, ...]], ...]:
    """Return all offsets up to so many of the smallest voxel edges by length in mm, ascending."""
    reach_mm = reach_voxels * min(spacing_mm)
    z_axis, y_axis, x_axis = (range(int(reach_mm / step_mm) + 1) for step_mm in spacing_mm)
    shells: defaultdict[float, list[Offset]] = defaultdict(list)
    for offset in product(z_axis, y_axis, x_axis):
        if (length_mm := hypot(*map(mul, offset, spacing_mm))) <= reach_mm:
            shells[length_mm].append(offset)
    return tuple((length_mm, tuple(shells[length_mm])) for length_mm in sorted(shells))


def _extent(occupied: NDArray[np.generic]) -> slice:
    where = np.flatnonzero(occupied)
    return slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 0)
