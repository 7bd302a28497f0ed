"""How images are brought to the network's grid and scale, as far as a plan decides it.

Sources: nnU-Net (arXiv 1904.08128v2), methods "resampling"; the options are those of published
brain segmentation pipelines and are off unless a run asks for them.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import model_validator

from common.codec import record

Percentile = Annotated[float, Ge(0), Le(100)]


@record
class Resampling:
    """Orders of the spline per kind of image; the published ones unless a plan is edited."""

    image_order: Literal[0, 1, 3] = 3
    """Cubic for intensities."""
    label_order: Literal[0, 1] = 1
    """Linear, on the mask of every label."""
    probability_order: Literal[0, 1] = 1
    """Linear, for the way back to the image's own grid."""
    across_thick_slices_order: Literal[0, 1] = 0
    """The nearest slice, where slices are thick: interpolation would invent anatomy."""
    thick_slices_ratio: Annotated[float, Gt(1)] = 3.0
    """Largest over smallest spacing above which slices are thick and are resampled one by one."""


@record
class Diffusion:
    """Edge-preserving smoothing after Perona and Malik 1990 (gradient anisotropic diffusion)."""

    n_iterations: Annotated[int, Ge(1)]
    conductance: Annotated[float, Gt(0)]
    """Larger values smooth across stronger edges."""


@record
class Preparation:
    """Optional steps on each MRI channel before it is normalised, in this order."""

    n4_bias_correction: bool = False
    """N4 (Tustison et al. 2010). BraTS images come uncorrected on purpose: N4 removes FLAIR."""
    diffusion: Diffusion | None = None
    clip_percentiles: tuple[Percentile, Percentile] | None = None
    """Of the voxels that are not zero; published: 1 and 99."""
    histogram_landmarks: (
        dict[str, Annotated[tuple[Annotated[float, Ge(0)], ...], MinLen(2)]] | None
    ) = None
    """By channel, evenly spaced percentiles of a reference, from the 1st to the 99th, that those
    of every image are mapped onto (Nyul et al. 2000); of the voxels that are not zero."""

    @model_validator(mode="after")
    def _ascending(self) -> "Preparation":
        if self.clip_percentiles and self.clip_percentiles[0] >= self.clip_percentiles[1]:
            raise ValueError("clip_percentiles: expected the lower one first")
        for channel, landmarks in (self.histogram_landmarks or {}).items():
            if list(landmarks) != sorted(set(landmarks)):
                raise ValueError(f"histogram_landmarks.{channel}: expected ascending values")
        return self
