"""Intensities of CT channels: sums and counts of whole HU at the sites, constants in the plan.

Only CT has an absolute scale; of every other modality no intensity leaves a site.

Source: nnU-Net (arXiv 1904.08128v2), methods "intensity normalization"; weighting by voxels as in
the paper's code (MIC-DKFZ/nnUNet at dba763e1).
"""

from dataclasses import dataclass
from math import sqrt
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import model_validator

from common.codec import record
from common.errors import ConfigError
from common.planning.histogram import Histogram, added, percentile

FOREGROUND_STEP = 10  # every 10th foreground voxel of a case; the paper's code
HU_RANGE = (-1024, 3071)  # 12-bit CT; rarer values would identify implants and join the end bins


@record
class CtStatistics:
    """Sampled foreground of one CT channel, in whole HU. All of it may leave the site."""

    n_voxels: Annotated[int, Ge(0)]
    total_hu: int
    total_squared_hu2: Annotated[int, Ge(0)]
    histogram_hu: Histogram
    """Voxels per HU; values outside `HU_RANGE` are counted at its ends."""

    @model_validator(mode="after")
    def _consistent(self) -> "CtStatistics":
        if sum(self.histogram_hu.values()) != self.n_voxels:
            raise ValueError(f"histogram_hu: expected {self.n_voxels} voxels in all")
        if self.total_hu**2 > self.n_voxels * self.total_squared_hu2:
            raise ValueError("total_squared_hu2: too small for total_hu")
        return self


@dataclass(frozen=True)
class IntensityConstants:
    """How a CT channel is clipped and scaled, in HU. May leave the coordinator in a plan."""

    mean: float
    std: float
    percentile_0_5: float
    percentile_99_5: float


def ct_channels(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the channels that are normalised as CT: those named CT, in any case of letters."""
    return tuple(channel for channel in channels if channel.upper() == "CT")


def ct_statistics(sampled_hu: NDArray[np.floating]) -> CtStatistics:
    """Return the statistics of foreground voxels in HU, rounded to whole HU; none is allowed."""
    voxels = np.rint(sampled_hu).astype(np.int64)
    values, counts = np.unique(np.clip(voxels, *HU_RANGE), return_counts=True)
    return CtStatistics(
        n_voxels=voxels.size,
        total_hu=int(voxels.sum()),
        total_squared_hu2=int((voxels**2).sum()),
        histogram_hu=dict(zip(values.tolist(), counts.tolist(), strict=True)),
    )


def added_ct(a: CtStatistics, b: CtStatistics) -> CtStatistics:
    """Return the statistics of both sets of voxels together; commutative and associative."""
    return CtStatistics(
        n_voxels=a.n_voxels + b.n_voxels,
        total_hu=a.total_hu + b.total_hu,
        total_squared_hu2=a.total_squared_hu2 + b.total_squared_hu2,
        histogram_hu=added(a.histogram_hu, b.histogram_hu),
    )


def intensity_constants(ct: CtStatistics) -> IntensityConstants:
    """Return clip range, mean and population standard deviation of a CT channel.

    Raises:
        ConfigError: when no case has foreground.
    """
    n = ct.n_voxels
    if n == 0:
        raise ConfigError("CT intensities: expected foreground voxels in some case, found none")
    scaled_variance = n * ct.total_squared_hu2 - ct.total_hu**2  # whole numbers: no cancellation
    return IntensityConstants(
        mean=ct.total_hu / n,
        std=sqrt(scaled_variance / n**2),
        percentile_0_5=percentile(ct.histogram_hu, 0.5),
        percentile_99_5=percentile(ct.histogram_hu, 99.5),
    )
