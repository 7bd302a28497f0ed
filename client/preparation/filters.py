"""Filters of SimpleITK for MRI: bias-field correction and edge-preserving smoothing.

This is the only file that knows SimpleITK. Each filter gets one thread: cases are prepared side
by side, and the result does not depend on the machine.
"""
# mypy: disable-error-code="no-untyped-call"
# SimpleITK ships types, but only for a part of its functions.

from typing import Any, Final

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that everybody gives it
from numpy.typing import NDArray

from common.axes import SpacingMm
from common.planning.preparation import Diffusion

SHRINK_FACTOR: Final = 4  # the field is smooth; SimpleITK's N4 example
N4_ITERATIONS: Final = (50, 50, 50, 50)  # per resolution; SimpleITK's default
N4_CONVERGENCE: Final = 0.001  # as above
TIME_STEP_FRACTION: Final = 1 / 16  # of the smallest spacing; stable in 3-D up to 1 / 2^4, ITK

Volume = NDArray[np.float32]


def bias_corrected(channel: Volume, spacing_mm: SpacingMm) -> Volume:
    """Divide by the smooth multiplicative field that N4 estimates from the voxels above zero.

    Args:
        channel: axes (z, y, x).
        spacing_mm: along (z, y, x).

    Returns:
        The corrected channel; `channel` itself when it is too flat or empty to hold a field.

    Source: Tustison et al. 2010, "N4ITK: improved N3 bias correction".
    """
    image = _image(channel, spacing_mm)
    factors = [min(SHRINK_FACTOR, size // 2) for size in image.GetSize()]  # two voxels at least
    if min(factors) < 1:
        return channel
    small = sitk.Shrink(image, factors)
    mask = sitk.Cast(small > 0, sitk.sitkUInt8)
    if not sitk.GetArrayViewFromImage(mask).any():
        return channel
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetMaximumNumberOfIterations(N4_ITERATIONS)
    correction.SetConvergenceThreshold(N4_CONVERGENCE)
    correction.SetNumberOfThreads(1)
    factors = [min(SHRINK_FACTOR, size) for size in image.GetSize()]
    correction.Execute(small, mask)
    field: Any = sitk.Exp(sitk.Cast(correction.GetLogBiasFieldAsImage(image), sitk.sitkFloat32))
    corrected: Volume = channel / sitk.GetArrayFromImage(field)
    return corrected


def diffused(channel: Volume, spacing_mm: SpacingMm, diffusion: Diffusion) -> Volume:
    """Smooth inside tissue and not across strong edges; zero voxels stay zero.

    Args:
        channel: axes (z, y, x).
        spacing_mm: along (z, y, x).
        diffusion: iterations and conductance.

    Source: Perona and Malik 1990, gradient anisotropic diffusion as in ITK.
    """
    smoothing = sitk.GradientAnisotropicDiffusionImageFilter()
    smoothing.SetTimeStep(TIME_STEP_FRACTION * min(spacing_mm))
    smoothing.SetNumberOfIterations(diffusion.n_iterations)
    smoothing.SetConductanceParameter(diffusion.conductance)
    smoothing.SetNumberOfThreads(1)
    smoothed = sitk.GetArrayFromImage(smoothing.Execute(_image(channel, spacing_mm)))
    inside: Volume = np.where(channel != 0, smoothed, np.float32(0))
    return inside


def _image(channel: Volume, spacing_mm: SpacingMm) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(channel))
    image.SetSpacing(tuple(reversed(spacing_mm)))
    return image
