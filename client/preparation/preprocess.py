"""From an image to what the network sees, and from its probabilities back to the image's grid.

A case is cropped to its non-zero region, filtered if the plan says so, put on the plan's axes and
spacing, and normalised; by the paper's rules after resampling, by nnunetv2's before it. Pure
functions; nothing here reads or writes files. What is done to the image never depends on its
labels, so a case is prepared alike for training and for prediction.

Source: nnU-Net (arXiv 1904.08128v2), methods "cropping", "resampling", "normalisation";
nnunetv2 2.8.1, `DefaultPreprocessor`, for plans by its rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.preparation.enhance import enhanced
from client.preparation.normalize import normalise
from client.preparation.resample import (
    resample_image,
    resample_labels,
    resample_probabilities,
    resampled_shape,
)
from common.axes import Image, LabelMap, Mask, Probabilities, Shape, SpacingMm, three
from common.codec import record
from common.errors import ConfigError
from common.planning.plan import AnyConfiguration, Configuration, Plan
from common.planning.preparation import Resampling

FOREGROUND_VOXELS: Final = 10_000  # kept per class and case; same source
FOREGROUND_FRACTION: Final = 0.01  # but at least so much of a class; same source
FOREGROUND_SEED: Final = 1234  # same source

T = TypeVar("T", int, float)
Range = tuple[int, int]
Index = NDArray[np.int32]


@record
class Geometry:
    """How a prepared case lies in its image. Stays at the site."""

    full_shape: Shape
    """Of the RAS+ image, along (z, y, x)."""
    box: tuple[Range, Range, Range]
    """First voxel and end of the crop, along (z, y, x)."""
    spacing_mm: SpacingMm
    """Of the RAS+ image, along (z, y, x)."""
    transpose: tuple[int, int, int]
    """Which of (z, y, x) each network axis is."""
    network_spacing_mm: SpacingMm
    """Along the network's axes; slices of a 2d configuration keep their distance."""
    resampling: Resampling = Resampling()
    """How the way there was, and the way back is, interpolated."""

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Where the crop lies in the image."""
        z, y, x = (slice(start, stop) for start, stop in self.box)
        return z, y, x

    @property
    def cropped_shape(self) -> Shape:
        """Voxels of the crop along (z, y, x)."""
        z, y, x = (stop - start for start, stop in self.box)
        return z, y, x

    @property
    def network_shape(self) -> Shape:
        """Voxels of the prepared case along the network's axes."""
        return resampled_shape(
            _reorder(self.cropped_shape, self.transpose),
            _reorder(self.spacing_mm, self.transpose),
            self.network_spacing_mm,
        )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case on the network's grid. Stays at the site."""

    image: Image
    """Normalised float32, axes (channel, network axes)."""
    labels: LabelMap | None
    geometry: Geometry


def nonzero_box(image: Image) -> tuple[slice, slice, slice]:
    """Return the bounding box of the voxels that are not zero in every channel.

    Args:
        image: axes (channel, z, y, x).

    Returns:
        Half-open slices along (z, y, x); the whole image when every voxel is zero.
    """
    occupied = (image != 0).any(axis=0)  # holes lie inside the box, so they need no filling here
    planes = occupied.any(axis=2)
    return _extent(planes.any(axis=1)), _extent(planes.any(axis=0)), _extent(occupied.any((0, 1)))


def nonzero_mask(image: Image) -> Mask:
    """Return where any channel is not zero, with enclosed holes filled.

    Args:
        image: axes (channel, z, y, x).
    """
    empty, _ = ndimage.label(np.pad((image == 0).all(axis=0), 1, constant_values=True))
    outside = empty == empty[0, 0, 0]  # one component thanks to the border; the rest are holes
    mask: Mask = ~outside[1:-1, 1:-1, 1:-1]
    return mask


def prepare(
    image: Image,
    spacing_mm: SpacingMm,
    labels: LabelMap | None,
    plan: Plan,
    configuration: AnyConfiguration,
) -> Prepared:
    """Crop, filter, transpose, resample and normalise one case.

    Args:
        image: RAS+ intensities, axes (channel, z, y, x), channels in the plan's order.
        spacing_mm: along (z, y, x), above 0.
        labels: axes (z, y, x), or None where there is no reference.
        plan: gives the axis order and how to filter, resample and normalise each channel.
        configuration: gives the target spacing along the network's axes; one of two axes leaves
            the distance of the slices across the first network axis as it is.

    Raises:
        ConfigError: when the plan normalises a CT channel without the federation's statistics.
    """
    if len(image) != len(plan.channels):
        raise ConfigError(
            f"image: expected the plan's channels {plan.channels}, found {len(image)}"
        )
    box = nonzero_box(image)
    cropped = image[(slice(None), *box)]
    geometry = Geometry(
        full_shape=three(image.shape[-3:]),
        box=_ranges(box),
        spacing_mm=spacing_mm,
        transpose=plan.transpose,
        network_spacing_mm=_network_spacing_mm(spacing_mm, plan, configuration),
        resampling=plan.resampling,
    )
    return Prepared(
        image=_image_on_scale(cropped, geometry, plan),
        labels=None if labels is None else _labels_on_grid(labels[box], cropped, geometry, plan),
        geometry=geometry,
    )


def restore(probabilities: Probabilities, geometry: Geometry) -> Probabilities:
    """Bring the network's output back to the grid of the cropped image.

    Args:
        probabilities: axes (output, network axes), on the prepared case's grid.
        geometry: of the prepared case.

    Returns:
        Axes (output, z, y, x) with the crop's shape.
    """
    resampled = resample_probabilities(
        probabilities,
        _reorder(geometry.cropped_shape, geometry.transpose),
        _reorder(geometry.spacing_mm, geometry.transpose),
        geometry.network_spacing_mm,
        geometry.resampling,
    )
    back = np.argsort(geometry.transpose)
    return np.ascontiguousarray(resampled.transpose(0, *(1 + back)))


def uncrop(labels: LabelMap, geometry: Geometry) -> LabelMap:
    """Put labels of the crop, axes (z, y, x), into the full image; background elsewhere."""
    full = np.zeros(geometry.full_shape, labels.dtype)
    full[geometry.slices] = labels
    return full


def foreground_index(labels: LabelMap, values: Sequence[int]) -> dict[int, Index]:
    """Draw voxels of every label value that occurs: all up to 10000, at least 1 %, else 10000.

    Args:
        labels: axes (a, b, c).
        values: label values to look for.

    Returns:
        Positions (n, 3) by label value; the same labels always give the same positions.
    """
    rng = np.random.default_rng(FOREGROUND_SEED)
    index = {}
    for value in values:
        found = np.flatnonzero(labels == value)
        wanted = max(FOREGROUND_VOXELS, int(np.ceil(FOREGROUND_FRACTION * found.size)))
        if found.size > wanted:
            found = np.sort(rng.choice(found, wanted, replace=False, shuffle=False))
        if found.size:
            index[value] = np.stack(np.unravel_index(found, labels.shape), axis=1).astype(np.int32)
    return index


def _image_on_scale(cropped: Image, geometry: Geometry, plan: Plan) -> Image:
    """Filter, resample and normalise, in the order of the plan's rules.

    The order matters: interpolation lowers the deviation and blurs the border of the head. Here
    the head is what the image says; nnunetv2 adds labelled voxels outside it when it has labels.
    """
    masked = any(rule.scheme == "masked-z-score" for rule in plan.normalization)
    mask = nonzero_mask(cropped).transpose(geometry.transpose) if masked else None
    image = enhanced(cropped, geometry.spacing_mm, plan.preparation, plan.normalization)
    image = image.transpose(0, *(1 + axis for axis in geometry.transpose))
    spacings = _spacings_mm(geometry)
    if plan.rules != "paper":
        normalised = normalise(image, plan.normalization, mask)
        return resample_image(normalised, *spacings, geometry.resampling)
    if mask is not None:
        mask = resample_labels(mask.astype(np.uint8), *spacings, geometry.resampling) > 0
    on_grid = resample_image(image, *spacings, geometry.resampling)
    return normalise(on_grid, plan.normalization, mask)


def _labels_on_grid(labels: LabelMap, cropped: Image, geometry: Geometry, plan: Plan) -> LabelMap:
    """Put labels on the network's axes and spacing, and decide shared voxels by the plan's rules.

    By nnunetv2's rules background outside the head competes as a label of its own.
    """
    reordered = labels.transpose(geometry.transpose)
    if geometry.network_shape == reordered.shape:
        return np.ascontiguousarray(reordered)
    spacings = _spacings_mm(geometry)
    if plan.rules == "paper":
        return resample_labels(np.ascontiguousarray(reordered), *spacings, geometry.resampling)
    outside = ~nonzero_mask(cropped).transpose(geometry.transpose) & (reordered == 0)
    marked = np.where(outside, np.int16(-1), reordered.astype(np.int16))
    resampled = resample_labels(marked, *spacings, geometry.resampling, "largest")
    on_grid: LabelMap = np.maximum(resampled, 0).astype(np.uint8)
    return on_grid


def _network_spacing_mm(
    spacing_mm: SpacingMm, plan: Plan, configuration: AnyConfiguration
) -> SpacingMm:
    if isinstance(configuration, Configuration):
        return configuration.spacing_mm
    return (spacing_mm[plan.transpose[0]], *configuration.spacing_mm)


def _spacings_mm(geometry: Geometry) -> tuple[SpacingMm, SpacingMm]:
    """Return the image's spacing and the network's, both along the network's axes."""
    return _reorder(geometry.spacing_mm, geometry.transpose), geometry.network_spacing_mm


def _extent(occupied: NDArray[np.bool_]) -> slice:
    hits = np.flatnonzero(occupied)
    return slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, occupied.size)


def _ranges(box: tuple[slice, slice, slice]) -> tuple[Range, Range, Range]:
    z, y, x = ((int(axis.start), int(axis.stop)) for axis in box)
    return z, y, x


def _reorder(values: tuple[T, T, T], transpose: tuple[int, int, int]) -> tuple[T, T, T]:
    a, b, c = (values[axis] for axis in transpose)
    return a, b, c
