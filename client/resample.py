"""Resampling to another voxel spacing, by the published rules.

Images use a cubic spline, labels and probabilities are linear, coordinates are aligned at voxel
centres and edges are repeated. An image with thick slices is resampled slice by slice, and
across slices the nearest one is taken, because interpolating over a large gap invents anatomy.

Source: nnU-Net (arXiv 1904.08128v2), methods "resampling"; interpolation as in
skimage.transform.resize(mode="edge", anti_aliasing=False), of which `_resize` is the core.
"""

from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.axes import Image, LabelMap, Probabilities, Shape, SpacingMm

ANISOTROPY: Final = 3.0  # largest over smallest spacing; nnU-Net, methods "resampling"

F = TypeVar("F", np.float32, np.float64)
V = TypeVar("V", np.float32, np.uint8)
Order = Literal[1, 3]


def resampled_shape(shape: Shape, spacing_mm: SpacingMm, target_spacing_mm: SpacingMm) -> Shape:
    """Return the number of voxels per axis at the target spacing, at least one."""
    z, y, x = (
        max(1, round(size * (spacing / target)))
        for size, spacing, target in zip(shape, spacing_mm, target_spacing_mm, strict=True)
    )
    return z, y, x


def separate_axis(original_mm: SpacingMm, network_mm: SpacingMm) -> int | None:
    """Return the axis whose slices are too thick to interpolate across, or None.

    Args:
        original_mm: spacing of the image on disk; decides when it is anisotropic.
        network_mm: spacing of the plan, in the same axis order; decides otherwise.
    """
    for spacing in (original_mm, network_mm):
        if max(spacing) / min(spacing) > ANISOTROPY:
            thickest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return thickest[0] if len(thickest) == 1 else None
    return None


def resample_image(image: Image, spacing_mm: SpacingMm, target_spacing_mm: SpacingMm) -> Image:
    """Resample intensities with a cubic spline that stays within each volume's range.

    Args:
        image: axes (channel, a, b, c).
        spacing_mm: spacing along (a, b, c).
        target_spacing_mm: wanted spacing along the same axes.

    Returns:
        float32; `image` itself when the shape does not change.
    """
    shape = resampled_shape(_shape3(image), spacing_mm, target_spacing_mm)
    axis = separate_axis(spacing_mm, target_spacing_mm)
    return _resample_each(image, shape, axis, order=3)


def resample_labels(
    labels: LabelMap, spacing_mm: SpacingMm, target_spacing_mm: SpacingMm
) -> LabelMap:
    """Resample every label's mask linearly; a voxel gets the label that holds half of it.

    Where two labels hold exactly half each the higher value wins; where none holds half the
    voxel becomes background, as in the published implementation.

    Args:
        labels: axes (a, b, c).
        spacing_mm: spacing along (a, b, c).
        target_spacing_mm: wanted spacing along the same axes.

    Returns:
        Labels with the same values; `labels` itself when the shape does not change.
    """
    shape = resampled_shape(_shape3(labels), spacing_mm, target_spacing_mm)
    if shape == labels.shape:
        return labels
    axis = separate_axis(spacing_mm, target_spacing_mm)
    return _resample_one_hot(labels, shape) if axis is None else _by_slice(labels, shape, axis)


def resample_probabilities(
    probabilities: Probabilities, shape: Shape, original_mm: SpacingMm, network_mm: SpacingMm
) -> Probabilities:
    """Bring probabilities from the network's grid back to the image's, linearly.

    Args:
        probabilities: axes (output, a, b, c) at the plan's spacing.
        shape: wanted number of voxels along (a, b, c).
        original_mm: spacing of the image that was predicted, along (a, b, c).
        network_mm: spacing of the plan.

    Returns:
        float32; `probabilities` itself when the shape does not change.
    """
    return _resample_each(probabilities, shape, separate_axis(original_mm, network_mm), order=1)


def _resample_each(volumes: Image, shape: Shape, axis: int | None, order: Order) -> Image:
    if shape == volumes.shape[1:]:
        return volumes
    resampled = np.empty((len(volumes), *shape), np.float32)
    for index, volume in enumerate(volumes):
        if axis is None:
            resampled[index] = _resize(volume, shape, order)
        else:
            in_plane = _in_plane(shape, axis)
            slices = [_resize(one, in_plane, order) for one in np.moveaxis(volume, axis, 0)]
            resampled[index] = _spread(np.stack(slices), shape[axis], axis)
    return resampled


def _by_slice(labels: LabelMap, shape: Shape, axis: int) -> LabelMap:
    in_plane = _in_plane(shape, axis)
    slices = [_resample_one_hot(one, in_plane) for one in np.moveaxis(labels, axis, 0)]
    return _spread(np.stack(slices), shape[axis], axis)


def _resample_one_hot(labels: LabelMap, shape: tuple[int, ...]) -> LabelMap:
    resampled = np.zeros(shape, labels.dtype)
    for value in np.unique(labels):
        # double precision: shares of exactly one half must not fall below it by rounding
        share = _resize((labels == value).astype(np.float64), shape, order=1)
        resampled[share >= 0.5] = value
    return resampled


def _resize(volume: NDArray[F], shape: tuple[int, ...], order: Order) -> NDArray[F]:
    """Interpolate at voxel centres, repeat the edge, and keep to the input's range."""
    if shape == volume.shape:
        return volume
    factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
    resized = ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)
    np.clip(resized, volume.min(), volume.max(), out=resized)
    return resized


def _spread(slices: NDArray[V], n_slices: int, axis: int) -> NDArray[V]:
    """Take the nearest of the stacked slices for every new one; put the stack along `axis`."""
    centres = (np.arange(n_slices) + 0.5) * (len(slices) / n_slices) - 0.5
    nearest = np.clip(np.floor(centres + 0.5).astype(int), 0, len(slices) - 1)
    return np.moveaxis(slices[nearest], 0, axis)


def _in_plane(shape: Shape, axis: int) -> tuple[int, int]:
    first, second = (size for other, size in enumerate(shape) if other != axis)
    return first, second


def _shape3(volumes: NDArray[np.generic]) -> Shape:
    a, b, c = volumes.shape[-3:]
    return a, b, c
