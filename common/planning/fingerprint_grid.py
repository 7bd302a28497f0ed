"""A fingerprint as a vector of whole numbers of fixed length, so that it can be added masked.

The grid is fixed, not made from data: who sees a vector's length learns the number of CT channels.
It is finest where scanners are: spacings keep their 1e-4 mm up to 1.5 mm, so that 0.9375 or
0.7812 mm lose nothing, and then go by 0.001 mm. Extents go by 0.1 mm; but where the sum's own
shapes and spacings have a single product in such a step, that product is the extent, exactly:
cases of one spacing keep whole-numbered shapes.

Laws, for fingerprints of one task: ``from_vector(to_vector(a) + to_vector(b))`` is
``merge(a, b)`` where spacings lie on the grid and extents on it or alone in their step; otherwise
no order statistic lies further from the merge's than `error_on_grid` of one of the parts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError, MessageError
from common.planning.fingerprint import TICKS_PER_MM, AxisHistograms, Fingerprint
from common.planning.intensity import HU_RANGE, CtStatistics, ct_channels
from common.planning.release import ErrorBound, error_bound
from common.secure_sum import Words

Counts = NDArray[np.int64]
FINE_TICKS, COARSE_TICKS = 15_000, 200_000  # 1.5 mm and 20 mm: slices are thicker than pixels
COARSE_STEP_TICKS, EXTENT_STEP_TICKS = 10, 1_000  # 0.001 mm and 0.1 mm
MAX_EXTENT_TICKS = 20_000_000  # 2 m
MAX_SHAPE_VOXELS = 4_096

MAX_WORD = 2**53  # of one site; sums of a thousand sites stay below 2**63
MAX_PRODUCTS = 2_000_000  # of shapes and spacings; among more, hardly any is alone in its step


@dataclass(frozen=True)
class Grid:
    """Ascending values at which counts are kept; whatever lies beyond joins the ends."""

    values: Counts

    def places(self, numbers: Counts) -> NDArray[np.intp]:
        """Return for each number the index of the nearest value."""
        return np.searchsorted((self.values[1:] + self.values[:-1]) / 2, numbers)

    def counts(self, histogram: Mapping[int, int]) -> Counts:
        """Return the counts of a histogram, one per value of the grid."""
        counts = np.zeros(self.values.size, np.int64)
        places = self.places(np.array([*histogram], np.int64))
        np.add.at(counts, places, np.array([*histogram.values()], np.int64))
        return counts

    def histogram(self, counts: Counts) -> dict[int, int]:
        """Return counts as a histogram."""
        (found,) = counts.nonzero()
        return dict(zip(self.values[found].tolist(), counts[found].tolist(), strict=True))


SHAPES = Grid(np.arange(1, MAX_SHAPE_VOXELS + 1))
SPACINGS = Grid(
    np.append(
        np.arange(1, FINE_TICKS + 1),
        np.arange(FINE_TICKS, COARSE_TICKS, COARSE_STEP_TICKS) + COARSE_STEP_TICKS,
    )
)
EXTENTS = Grid(np.arange(EXTENT_STEP_TICKS, MAX_EXTENT_TICKS + 1, EXTENT_STEP_TICKS))
INTENSITIES = Grid(np.arange(HU_RANGE[0], HU_RANGE[1] + 1))


def n_words(channels: tuple[str, ...]) -> int:
    """Return the length of the vector for a task's channels."""
    axes = 3 * (SHAPES.values.size + SPACINGS.values.size + EXTENTS.values.size)
    return 2 + axes + len(ct_channels(channels)) * (3 + INTENSITIES.values.size)


def to_vector(fingerprint: Fingerprint) -> Words:
    """Return a site's fingerprint as whole numbers modulo 2**64.

    Raises:
        DataError: for a number that sums cannot hold.
    """
    scalars = [fingerprint.n_cases, fingerprint.n_cropped]
    for ct in fingerprint.ct.values():
        scalars += [ct.n_voxels, ct.total_hu, ct.total_squared_hu2]
    if (largest := max(map(abs, scalars))) >= MAX_WORD:
        raise DataError(
            f"secure sum: expected sums below {MAX_WORD}, found {largest}; are intensities in HU?"
        )
    return np.concatenate([*_parts(fingerprint)]).view(np.uint64)


def from_vector(vector: Words, nothing: Fingerprint) -> Fingerprint:
    """Return the fingerprint that a sum of vectors stands for.

    Args:
        vector: sum modulo 2**64 of the sites' vectors, without masks.
        nothing: the fingerprint of no cases of the task (`common.planning.fingerprint.empty`).

    Raises:
        MessageError: when it cannot be a sum of fingerprints: masks did not cancel.
    """
    if vector.shape != (n_words(nothing.channels),):
        raise MessageError(f"counts: expected {n_words(nothing.channels)}, found {vector.shape}")
    rest = _Reader(vector.view(np.int64))
    n_cases, n_cropped = rest.take(2).tolist()
    if not 0 <= n_cropped <= n_cases:
        raise MessageError(f"counts: implausible: {n_cropped} of {n_cases} cases are cropped")
    try:
        shapes, spacings = _axes(SHAPES, rest), _axes(SPACINGS, rest)
        extents = [rest.take(EXTENTS.values.size) for _ in range(3)]
        z, y, x = map(_extents, extents, shapes, spacings)
        return replace(
            nothing,
            n_cases=n_cases,
            n_cropped=n_cropped,
            shapes_voxels=shapes,
            spacings_ticks=spacings,
            extents_ticks=(z, y, x),
            ct={name: _ct(rest) for name in ct_channels(nothing.channels)},
        )
    except ValueError:  # the records' own laws: every axis counts every case, none is negative
        raise MessageError("counts: implausible: they contradict each other") from None


def error_on_grid(measured: Fingerprint) -> ErrorBound:
    """Return how far the grid moves this site's cases, at most.

    Args:
        measured: the site's own fingerprint.

    Returns:
        The bound. That of extents is a whole step of 0.1 mm (or more, above 2 m): which products
        of shape and spacing are alone in their step depends on the other sites.
    """
    moved = replace(
        measured,
        shapes_voxels=_moved(SHAPES, measured.shapes_voxels),
        spacings_ticks=_moved(SPACINGS, measured.spacings_ticks),
        extents_ticks=_moved(EXTENTS, measured.extents_ticks),
    )
    bound = error_bound(measured, moved)
    return replace(bound, extent_mm=max(bound.extent_mm, EXTENT_STEP_TICKS / TICKS_PER_MM))


@dataclass
class _Reader:
    """What is left of a vector that is read from its beginning."""

    left: Counts

    def take(self, n: int) -> Counts:
        taken, self.left = self.left[:n], self.left[n:]
        return taken


def _parts(fingerprint: Fingerprint) -> Iterator[Counts]:
    """Yield the parts of the vector in the order in which they are read."""
    yield np.array([fingerprint.n_cases, fingerprint.n_cropped], np.int64)
    for grid, axes in (
        (SHAPES, fingerprint.shapes_voxels),
        (SPACINGS, fingerprint.spacings_ticks),
        (EXTENTS, fingerprint.extents_ticks),
    ):
        yield from map(grid.counts, axes)
    for name in ct_channels(fingerprint.channels):
        ct = fingerprint.ct[name]
        yield np.array([ct.n_voxels, ct.total_hu, ct.total_squared_hu2], np.int64)
        yield INTENSITIES.counts(ct.histogram_hu)


def _axes(grid: Grid, rest: _Reader) -> AxisHistograms:
    z, y, x = (grid.histogram(rest.take(grid.values.size)) for _ in range(3))
    return z, y, x


def _moved(grid: Grid, axes: AxisHistograms) -> AxisHistograms:
    z, y, x = (grid.histogram(grid.counts(axis)) for axis in axes)
    return z, y, x


def _extents(
    counts: Counts, shapes: Mapping[int, int], spacings: Mapping[int, int]
) -> dict[int, int]:
    """Return the extents of one axis; where one product alone fits a step, that is the extent."""
    if not 0 < len(shapes) * len(spacings) <= MAX_PRODUCTS:
        return EXTENTS.histogram(counts)
    products = np.unique(np.multiply.outer([*shapes], [*spacings]))
    places = EXTENTS.places(products)
    alone, first, n_products = np.unique(places, return_index=True, return_counts=True)
    alone, first = alone[n_products == 1], first[n_products == 1]
    values = EXTENTS.values.copy()
    values[alone] = products[first]
    return Grid(values).histogram(counts)


def _ct(rest: _Reader) -> CtStatistics:
    n_voxels, total_hu, total_squared_hu2 = rest.take(3).tolist()
    return CtStatistics(
        n_voxels=n_voxels,
        total_hu=total_hu,
        total_squared_hu2=total_squared_hu2,
        histogram_hu=INTENSITIES.histogram(rest.take(INTENSITIES.values.size)),
    )
