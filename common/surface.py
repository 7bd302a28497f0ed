"""Distances between the surfaces of two masks, and the two definitions of HD95 in the field.

Measured once, summarised cheaply: `surface_distances` returns one record, and each definition of
HD95 is a few lines on it. The two differ: always name the one that a number came from.

Sources:
    Pooled: evaluation code of the BraTS 2020 winner (Isensee et al. 2020, section 2.1).
    Maximum of the directed percentiles: MONAI, `compute_hausdorff_distance`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from common.axes import Mask, SpacingMm

Hd95: TypeAlias = Literal["pooled", "max"]
"""Which 95th percentile of the surface distances is meant; see `HD95_DEFINITIONS`."""

Box: TypeAlias = tuple[slice, ...]
"""The voxels of a box, one slice per axis."""

DistancesMm: TypeAlias = NDArray[np.float64]


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
        Distances in float64; no values from an empty mask, infinite values towards one.
    """
    box = bounding_box(reference | prediction)
    on_reference, on_prediction = surface(reference[box]), surface(prediction[box])
    # Surface voxels that both masks share are 0 mm apart; only the others need a search.
    shared = int(np.count_nonzero(on_reference & on_prediction))
    return SurfaceDistances(
        to_prediction_mm=_nearest_mm(on_reference, on_prediction, spacing_mm, shared),
        to_reference_mm=_nearest_mm(on_prediction, on_reference, spacing_mm, shared),
    )


def surface(mask: Mask) -> Mask:
    """Return the voxels of `mask` with at least one of the six face neighbours outside it.

    What lies outside the array is background, so a mask that touches the border has a surface
    there. An empty mask has an empty surface.
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        cut, source = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        cut[1:] &= source[:-1]
        cut[:-1] &= source[1:]
        cut[:1] = cut[-1:] = False
    return mask & ~inner


def bounding_box(mask: Mask) -> Box:
    """Return the smallest box that holds every true voxel; of length 0 when there is none."""
    box: Box = ()
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        occupied = np.flatnonzero(mask.any(axis=others))
        box += (slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0),)
    return box


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


def _nearest_mm(origins: Mask, targets: Mask, spacing_mm: SpacingMm, n_shared: int) -> DistancesMm:
    tree = cKDTree(np.argwhere(targets) * spacing_mm, balanced_tree=False, compact_nodes=False)
    apart, _ = tree.query(np.argwhere(origins & ~targets) * spacing_mm)
    return np.concatenate([np.zeros(n_shared), apart])
