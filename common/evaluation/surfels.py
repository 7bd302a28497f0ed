"""Surface distances weighted by area: normalised surface Dice, and HD95 as BraTS 2023 has it.

`surface.py` counts surface voxels. Here a surface is made of small triangles, as marching
cubes would draw them: each corner where eight voxels meet carries the area of the triangles that
these voxels imply, so that a slanted surface counts for what it measures and not for how many
voxels it cuts.

Source: Nikolov et al. 2018 (arXiv 1809.04430), "surface Dice at tolerance"; the numbers equal
    those of google-deepmind/surface-distance.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import hypot

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from common.axes import Mask, SpacingMm
from common.evaluation.surface import DistancesMm

AreasMm2 = NDArray[np.float64]

# The triangles at a corner, as normals along (z, y, x) whose length is the area, in eighths of a
# voxel's faces; signs do not matter for an area. Behind them, the neighbourhoods: bit i stands for
# the i-th of the eight voxels, and 255 minus a code has the same triangles.
# Source: surface-distance, `lookup_tables.py` (made by marching cubes).
_TRIANGLES: dict[tuple[tuple[int, int, int], ...], tuple[int, ...]] = {
    ((1, 1, 1),): (1, 2, 4, 8, 16, 32, 64, 127),
    ((2, 2, 0), (2, 2, 0)): (3, 12, 48, 63),
    ((2, 0, 2), (2, 0, 2)): (5, 10, 80, 95),
    ((0, 2, 2), (0, 2, 2)): (17, 34, 68, 119),
    ((1, 1, 1), (1, 1, 1)): (6, 9, 18, 20, 24, 33, 36, 40, 65, 66, 72, 96, 111, 123, 125, 126),
    ((4, 0, 0), (4, 0, 0)): (15,),
    ((0, 4, 0), (0, 4, 0)): (51,),
    ((0, 0, 4), (0, 0, 4)): (85,),
    ((4, 0, 0), (2, 2, 2), (1, 1, 1)): (7, 11, 13, 14, 31, 47, 79, 112),
    ((0, 4, 0), (2, 2, 2), (1, 1, 1)): (19, 35, 49, 50, 55, 59, 76, 115),
    ((0, 0, 4), (2, 2, 2), (1, 1, 1)): (21, 42, 69, 81, 84, 87, 93, 117),
    ((1, 1, 1), (1, 1, 1), (1, 1, 1)): (22, 41, 73, 97, 104, 107, 109, 121),
    ((0, 2, 2), (0, 2, 2), (1, 1, 1)): (25, 38, 70, 98, 100, 103, 110, 118),
    ((2, 0, 2), (2, 0, 2), (1, 1, 1)): (26, 37, 74, 82, 88, 91, 94, 122),
    ((2, 2, 0), (2, 2, 0), (1, 1, 1)): (28, 44, 52, 56, 61, 62, 67, 124),
    ((2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1)): (23, 43, 77, 113),
    ((3, 3, 3), (0, 2, 2), (2, 0, 2), (1, 1, 1)): (27, 39, 78, 114),
    ((3, 3, 3), (0, 2, 2), (2, 2, 0), (1, 1, 1)): (29, 46, 71, 116),
    ((3, 3, 3), (2, 0, 2), (2, 2, 0), (1, 1, 1)): (53, 58, 83, 92),
    ((4, 0, 0), (2, 2, 2), (1, 1, 1), (1, 1, 1)): (30, 45, 75, 120),
    ((0, 4, 0), (2, 2, 2), (1, 1, 1), (1, 1, 1)): (54, 57, 99, 108),
    ((0, 0, 4), (2, 2, 2), (1, 1, 1), (1, 1, 1)): (86, 89, 101, 106),
    ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)): (60,),
    ((2, 0, 2), (2, 0, 2), (2, 0, 2), (2, 0, 2)): (90,),
    ((0, 2, 2), (0, 2, 2), (0, 2, 2), (0, 2, 2)): (102,),
    ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)): (105,),
}


@dataclass(frozen=True)
class WeightedDistances:
    """For every piece of one surface, its distance to the other and its area; in no order."""

    to_prediction_mm: DistancesMm
    """One value per piece of the reference; infinite when the prediction is empty."""
    reference_mm2: AreasMm2
    to_reference_mm: DistancesMm
    """One value per piece of the prediction; infinite when the reference is empty."""
    prediction_mm2: AreasMm2


def weighted_distances(
    reference: Mask, prediction: Mask, spacing_mm: SpacingMm
) -> WeightedDistances:
    """Measure Euclidean distances between the surfaces of two masks, with the areas they stand for.

    Args:
        reference: axes (z, y, x); outside the array is background.
        prediction: same shape as `reference`.
        spacing_mm: voxel size along (z, y, x), above 0.
    """
    (true, true_mm2), (found, found_mm2) = (
        _corners(mask, spacing_mm) for mask in (reference, prediction)
    )
    return WeightedDistances(
        to_prediction_mm=_nearest_mm(true, found, spacing_mm),
        reference_mm2=true_mm2,
        to_reference_mm=_nearest_mm(found, true, spacing_mm),
        prediction_mm2=found_mm2,
    )


def surface_dice(distances: WeightedDistances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within a tolerance of the other, 0 to 1.

    Args:
        distances: of two masks of which at least one is not empty.
        tolerance_mm: at least 0; what two experts disagree by, for example.
    """
    true = distances.reference_mm2, distances.to_prediction_mm
    found = distances.prediction_mm2, distances.to_reference_mm
    near_mm2 = sum(float(mm2[mm <= tolerance_mm].sum()) for mm2, mm in (true, found))
    return near_mm2 / float(distances.reference_mm2.sum() + distances.prediction_mm2.sum())


def hd95_weighted_mm(distances: WeightedDistances) -> float:
    """Return the larger of the two distances within which 95 % of a surface's area lies.

    Without interpolation: the first distance at which the area reaches 95 %. Infinite where exactly
    one of the masks is empty.
    """
    return max(
        _reached_mm(distances.to_prediction_mm, distances.reference_mm2),
        _reached_mm(distances.to_reference_mm, distances.prediction_mm2),
    )


def _reached_mm(distances_mm: DistancesMm, areas_mm2: AreasMm2) -> float:
    if not distances_mm.size:
        return float("inf")
    order = np.lexsort((areas_mm2, distances_mm))
    shares = np.cumsum(areas_mm2[order]) / areas_mm2[order].sum()
    place = min(int(np.searchsorted(shares, 0.95)), len(order) - 1)
    return float(distances_mm[order[place]])


def _corners(mask: Mask, spacing_mm: SpacingMm) -> tuple[NDArray[np.int64], AreasMm2]:
    """Return (n, 3) indices (z, y, x) of the corners on the surface, and the area at each.

    Corner i lies between the voxels i - 1 and i.
    """
    codes = np.zeros([size + 1 for size in mask.shape], np.uint8)
    for bit, offset in enumerate(product((0, 1), repeat=3)):
        place = tuple(slice(o, o + size) for o, size in zip(offset, mask.shape, strict=True))
        codes[place] |= mask.view(np.uint8) << np.uint8(bit)
    on_surface = (codes != 0) & (codes != 255)
    return np.argwhere(on_surface), _areas_mm2(spacing_mm)[codes[on_surface]]


@cache
def _areas_mm2(spacing_mm: SpacingMm) -> AreasMm2:
    """Return the area at a corner for each of the 256 neighbourhoods."""
    z_mm, y_mm, x_mm = spacing_mm
    faces_mm2 = (y_mm * x_mm, z_mm * x_mm, z_mm * y_mm)
    areas = np.zeros(256)
    for triangles, codes in _TRIANGLES.items():
        area = sum(_length(eighths, faces_mm2) for eighths in triangles) / 8
        areas[list(codes)] = areas[[255 - code for code in codes]] = area
    return areas


def _length(eighths: Iterable[int], faces_mm2: Iterable[float]) -> float:
    return hypot(*(part * face for part, face in zip(eighths, faces_mm2, strict=True)))


def _nearest_mm(
    origins: NDArray[np.int64], targets: NDArray[np.int64], spacing_mm: SpacingMm
) -> DistancesMm:
    """Return the distance of every origin to the nearest target.

    Computed from whole steps: equal steps give equal distances, which a tolerance needs.
    """
    if not len(targets):
        return np.full(len(origins), np.inf)
    tree = cKDTree(targets * spacing_mm, balanced_tree=False, compact_nodes=False)
    nearest = targets[tree.query(origins * spacing_mm)[1]]
    distances: DistancesMm = np.sqrt((((nearest - origins) * spacing_mm) ** 2).sum(axis=1))
    return distances
