"""The learning-free floor: what a threshold on the FLAIR image alone reaches on whole tumour.

A trained model that does not beat it has learned nothing of use. On BraTS 2020 the floor is .666.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.axes import Mask

MIN_COMPONENT_VOXELS = 20  # the floor's definition on BraTS 2020
FULL_CONNECTIVITY = ndimage.generate_binary_structure(3, 3)  # 26 neighbours, as cc3d's default


@dataclass(frozen=True)
class FloorResult:
    """The best that one threshold does on a set of cases. Holds nothing of a single case."""

    mean_dice: float
    """Mean over the cases, range [0, 1]; 0 without cases."""
    threshold: float
    """On the equalised intensity, range [0, 1]; the lowest of several equally good ones."""


def best_threshold_floor(
    images: Sequence[NDArray[np.float32]],
    references: Sequence[Mask],
    thresholds: Sequence[float],
) -> FloorResult:
    """Return the best mean Dice over all thresholds, chosen on the same cases it is measured on.

    The choice on the measured cases favours the floor: a model has to beat more than it must.

    Args:
        images: one FLAIR image per case, axes (z, y, x), zero outside the brain.
        references: one whole-tumour mask per case, in the same order and of the same shape.
        thresholds: on the equalised intensity, range [0, 1], at least one.

    Raises:
        ValueError: when the numbers of images and references differ, or no threshold is given.
    """
    if len(thresholds) == 0:
        raise ValueError("thresholds: expected at least one, found none")
    ordered = sorted(map(float, thresholds))
    dice = [
        [_dice(reference, threshold_mask(equalised, threshold)) for threshold in ordered]
        for reference, equalised in zip(references, map(equalise, images), strict=True)
    ]
    if not dice:
        return FloorResult(mean_dice=0.0, threshold=ordered[0])
    means = np.mean(dice, axis=0)
    best = int(np.argmax(means))
    return FloorResult(mean_dice=float(means[best]), threshold=ordered[best])


def equalise(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Equalise the histogram of the non-zero voxels.

    Args:
        image: intensities, axes (z, y, x), zero outside the brain.

    Returns:
        For each non-zero voxel the fraction of non-zero voxels that are not brighter, range
        (0, 1]; 0 elsewhere. All zero for an image of zeros.
    """
    brain = image != 0
    values = image[brain]
    equalised = np.zeros(image.shape, dtype=np.float32)
    if values.size:
        equalised[brain] = np.searchsorted(np.sort(values), values, side="right") / values.size
    return equalised


def threshold_mask(equalised: NDArray[np.float32], threshold: float) -> Mask:
    """Return the voxels above a threshold without components of fewer than 20 voxels.

    Args:
        equalised: as `equalise` returns it, axes (z, y, x).
        threshold: range [0, 1].
    """
    components, n_components = ndimage.label(equalised > threshold, structure=FULL_CONNECTIVITY)
    sizes = np.bincount(components.ravel(), minlength=n_components + 1)
    is_kept = sizes >= MIN_COMPONENT_VOXELS
    is_kept[0] = False  # component 0 is the background
    return np.asarray(is_kept[components])


def _dice(reference: Mask, prediction: Mask) -> float:
    """Return the Dice coefficient; 1 when both are empty, as BraTS has it."""
    n_both = np.count_nonzero(reference) + np.count_nonzero(prediction)
    return 2.0 * np.count_nonzero(reference & prediction) / n_both if n_both else 1.0
