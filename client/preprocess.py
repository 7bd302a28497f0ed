"""From an image to what the network sees, and from its probabilities back to the image's grid.

The order is the paper's: crop to the non-zero region, put the plan's axes first, resample,
normalise. Pure functions; nothing here reads or writes files. What is done to the image never
depends on its labels, so a case is prepared alike for training and for prediction.

Source: nnU-Net (arXiv 1904.08128v2), methods "cropping", "resampling", "normalisation".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.resample import (
    resample_image,
    resample_labels,
    resample_probabilities,
    resampled_shape,
)
from common.axes import Image, LabelMap, Mask, Probabilities, Shape, SpacingMm
from common.codec import record
from common.errors import ConfigError
from common.plan import Configuration, Normalization, Plan

STD_FLOOR: Final = 1e-8  # added to the standard deviation; nnU-Net 1.7.1, preprocessing
FOREGROUND_VOXELS: Final = 10_000  # kept per class and case; same source
FOREGROUND_FRACTION: Final = 0.01  # but at least so much of a class; same source
FOREGROUND_SEED: Final = 1234  # same source

T = TypeVar("T", int, float)
Range = tuple[int, int]
Volume = NDArray[np.float32]
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
    """Along the network's axes."""

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
    configuration: Configuration,
) -> Prepared:
    """Crop, transpose, resample and normalise one case.

    Args:
        image: RAS+ intensities, axes (channel, z, y, x), channels in the plan's order.
        spacing_mm: along (z, y, x), above 0.
        labels: axes (z, y, x), or None where there is no reference.
        plan: gives the axis order and each channel's normalisation.
        configuration: gives the target spacing, along the network's axes.

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
        full_shape=_shape3(image),
        box=_ranges(box),
        spacing_mm=spacing_mm,
        transpose=plan.transpose,
        network_spacing_mm=configuration.spacing_mm,
    )
    return Prepared(
        image=_normalise(_image_on_grid(cropped, geometry), plan, cropped, geometry),
        labels=None if labels is None else _labels_on_grid(labels[box], geometry),
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


def _image_on_grid(cropped: Image, geometry: Geometry) -> Image:
    axes = (0, *(1 + axis for axis in geometry.transpose))
    spacing_mm = _reorder(geometry.spacing_mm, geometry.transpose)
    return resample_image(cropped.transpose(axes), spacing_mm, geometry.network_spacing_mm)


def _labels_on_grid(cropped: LabelMap, geometry: Geometry) -> LabelMap:
    spacing_mm = _reorder(geometry.spacing_mm, geometry.transpose)
    reordered = cropped.transpose(geometry.transpose)
    resampled = resample_labels(reordered, spacing_mm, geometry.network_spacing_mm)
    return np.ascontiguousarray(resampled)


def _normalise(image: Image, plan: Plan, cropped: Image, geometry: Geometry) -> Image:
    """Normalise every channel; only the masked scheme looks at the crop, for its mask."""
    mask: Mask | None = None
    if any(rule.scheme == "masked-z-score" for rule in plan.normalization):
        mask = _labels_on_grid(nonzero_mask(cropped).astype(np.uint8), geometry) > 0
    normalised = np.empty(image.shape, np.float32)
    for index, rule in enumerate(plan.normalization):
        if rule.scheme == "ct":
            normalised[index] = _ct(image[index], rule)
        else:
            normalised[index] = _z_score(image[index], mask if rule.scheme != "z-score" else None)
    return normalised


def _z_score(channel: Volume, mask: Mask | None) -> Volume:
    """Return (value - mean) / std; with a mask, of and inside the mask only, 0 elsewhere."""
    inside = channel if mask is None else channel[mask]
    if not inside.size:
        return np.zeros_like(channel)
    mean, std = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    score = (channel - np.float32(mean)) / np.float32(std + STD_FLOOR)
    return score if mask is None else np.where(mask, score, np.float32(0))


def _ct(channel: Volume, rule: Normalization) -> Volume:
    """Clip to the federation's foreground range and standardise by its mean and deviation."""
    if rule.clip_low is None or rule.clip_high is None or rule.mean is None or rule.std is None:
        raise ConfigError(
            f"plan: normalization of {rule.channel}: expected clip_low, clip_high, mean and std "
            "for the scheme 'ct', found them incomplete"
        )
    clipped = np.clip(channel, np.float32(rule.clip_low), np.float32(rule.clip_high))
    score: Volume = (clipped - np.float32(rule.mean)) / np.float32(rule.std + STD_FLOOR)
    return score


def _extent(occupied: NDArray[np.bool_]) -> slice:
    hits = np.flatnonzero(occupied)
    return slice(int(hits[0]), int(hits[-1]) + 1) if hits.size else slice(0, occupied.size)


def _ranges(box: tuple[slice, slice, slice]) -> tuple[Range, Range, Range]:
    z, y, x = ((int(axis.start), int(axis.stop)) for axis in box)
    return z, y, x


def _reorder(values: tuple[T, T, T], transpose: tuple[int, int, int]) -> tuple[T, T, T]:
    a, b, c = (values[axis] for axis in transpose)
    return a, b, c


def _shape3(volumes: NDArray[np.generic]) -> Shape:
    z, y, x = volumes.shape[-3:]
    return z, y, x
