"""One alias per array concept, with its axes named.

Every image is first brought into RAS+ orientation and stored slowest axis first, so that
``z`` runs from inferior to superior, ``y`` from posterior to anterior and ``x`` from left to
right. Spacings and shapes follow the same order, as printed plans do.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

SpacingMm: TypeAlias = tuple[float, float, float]
"""Voxel size in mm along (z, y, x)."""

Shape: TypeAlias = tuple[int, int, int]
"""Number of voxels along (z, y, x)."""

Image: TypeAlias = NDArray[np.float32]
"""Intensities, axes (channel, z, y, x)."""

LabelMap: TypeAlias = NDArray[np.uint8]
"""One label value per voxel, axes (z, y, x)."""

Mask: TypeAlias = NDArray[np.bool_]
"""Truth value per voxel, axes (z, y, x)."""

RegionMasks: TypeAlias = NDArray[np.bool_]
"""Truth value per region and voxel, axes (region, z, y, x); regions may overlap."""

Probabilities: TypeAlias = NDArray[np.float32]
"""Probability per output channel and voxel, axes (output, z, y, x), range [0, 1]."""

Weights: TypeAlias = dict[str, NDArray[Any]]
"""Tensors of a model by parameter name."""
