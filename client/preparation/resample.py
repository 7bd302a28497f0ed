"""Resampling to another voxel spacing, by the published rules.

Images use a cubic spline, labels and probabilities are linear, coordinates are aligned at voxel
centres and edges are repeated. An image with thick slices is resampled slice by slice, and
across slices the nearest one is taken, because interpolating over a large gap invents anatomy.
A plan may set other orders.

Source: nnU-Net (arXiv 1904.08128v2), methods "resampling"; interpolation as in
skimage.transform.resize(mode="edge", anti_aliasing=False).
"""

import numpy as np
from numpy.typing import NDArray

from client.preparation.interpolation import Order, interpolate
from client.preparation.label_shares import Decision, V, interpolate_labels, majority_along
from common.axes import Image, Probabilities, Shape, SpacingMm, three
from common.planning.preparation import Resampling

PUBLISHED = Resampling()


def resampled_shape(shape: Shape, spacing_mm: SpacingMm, target_spacing_mm: SpacingMm) -> Shape:
    """Return the number of voxels per axis at the target spacing, at least one."""
    z, y, x = (
        max(1, round(size * (spacing / target)))
        for size, spacing, target in zip(shape, spacing_mm, target_spacing_mm, strict=True)
    )
    return z, y, x


def separate_axis(
    original_mm: SpacingMm, network_mm: SpacingMm, thick_slices_ratio: float = 3.0
) -> int | None:
    """Return the axis whose slices are too thick to interpolate across, or None.

    Args:
        original_mm: spacing of the image on disk; decides when it is anisotropic.
        network_mm: spacing of the plan, in the same axis order; decides otherwise.
        thick_slices_ratio: largest over smallest spacing above which slices are thick.
    """
    for spacing in (original_mm, network_mm):
        if max(spacing) / min(spacing) > thick_slices_ratio:
            thickest = [axis for axis in range(3) if spacing[axis] == max(spacing)]
            return thickest[0] if len(thickest) == 1 else None
    return None


def resample_image(
    image: Image,
    spacing_mm: SpacingMm,
    target_spacing_mm: SpacingMm,
    resampling: Resampling = PUBLISHED,
) -> Image:
    """Resample intensities; a spline that overshoots is kept within each volume's range.

    Args:
        image: axes (channel, a, b, c).
        spacing_mm: spacing along (a, b, c).
        target_spacing_mm: wanted spacing along the same axes.
        resampling: the plan's.

    Returns:
        float32; `image` itself when the shape does not change.
    """
    shape = resampled_shape(three(image.shape[-3:]), spacing_mm, target_spacing_mm)
    axis = separate_axis(spacing_mm, target_spacing_mm, resampling.thick_slices_ratio)
    across = resampling.across_thick_slices_order
    return _resample_each(image, shape, axis, resampling.image_order, across)


def resample_labels(
    labels: NDArray[V],
    spacing_mm: SpacingMm,
    target_spacing_mm: SpacingMm,
    resampling: Resampling = PUBLISHED,
    decision: Decision = "half",
) -> NDArray[V]:
    """Resample every label's mask linearly and decide between them in every voxel.

    Args:
        labels: whole numbers, axes (a, b, c).
        spacing_mm: spacing along (a, b, c).
        target_spacing_mm: wanted spacing along the same axes.
        resampling: the plan's.
        decision: see `client.preparation.label_shares`.

    Returns:
        Labels with the same values, or 0; `labels` itself when the shape does not change.
    """
    shape = resampled_shape(three(labels.shape[-3:]), spacing_mm, target_spacing_mm)
    if shape == labels.shape:
        return labels
    axis = separate_axis(spacing_mm, target_spacing_mm, resampling.thick_slices_ratio)
    if axis is None:
        return interpolate_labels(labels, shape, resampling.label_order, decision)
    in_plane = _in_plane(shape, labels.shape[axis], axis)
    slices = interpolate_labels(labels, in_plane, resampling.label_order, decision)
    if resampling.across_thick_slices_order == 0:
        return interpolate_labels(slices, shape, 0, decision)
    return majority_along(slices, shape[axis], axis)


def resample_probabilities(
    probabilities: Probabilities,
    shape: Shape,
    original_mm: SpacingMm,
    network_mm: SpacingMm,
    resampling: Resampling = PUBLISHED,
) -> Probabilities:
    """Bring probabilities from the network's grid back to the image's.

    Args:
        probabilities: axes (output, a, b, c) at the plan's spacing.
        shape: wanted number of voxels along (a, b, c).
        original_mm: spacing of the image that was predicted, along (a, b, c).
        network_mm: spacing of the plan.
        resampling: the plan's.

    Returns:
        float32; `probabilities` itself when the shape does not change.
    """
    axis = separate_axis(original_mm, network_mm, resampling.thick_slices_ratio)
    across = resampling.across_thick_slices_order
    return _resample_each(probabilities, shape, axis, resampling.probability_order, across)


def _resample_each(
    volumes: Image, shape: Shape, axis: int | None, order: Order, across: Order
) -> Image:
    if shape == volumes.shape[1:]:
        return volumes
    resampled = np.empty((len(volumes), *shape), np.float32)
    for index, volume in enumerate(np.ascontiguousarray(volumes)):
        if axis is None:
            resampled[index] = _within_range(interpolate(volume, shape, order), volume, None)
        else:
            in_plane = _in_plane(shape, volume.shape[axis], axis)
            slices = _within_range(interpolate(volume, in_plane, order), volume, axis)
            resampled[index] = interpolate(slices, shape, across)
    return resampled


def _within_range(
    resized: NDArray[np.float32], volume: NDArray[np.float32], axis: int | None
) -> NDArray[np.float32]:
    """Keep to the range of the volume, or of each of its slices along `axis`."""
    axes = tuple(other for other in range(3) if other != axis)
    return np.clip(resized, volume.min(axes, keepdims=True), volume.max(axes, keepdims=True))


def _in_plane(shape: Shape, n_slices: int, axis: int) -> Shape:
    a, b, c = (n_slices if other == axis else size for other, size in enumerate(shape))
    return a, b, c
