"""What privacy a run promises to patients: the section `[privacy]` of its configuration.

The unit is the patient. In every optimisation step each patient of a site is drawn with the
probability `sampling_rate`, independently (Poisson sampling); each drawn patient contributes one
gradient, the mean over `patches_per_patient` patches, of L2 norm at most `clip_norm`; normal noise
of deviation `noise_multiplier * clip_norm` is added to their sum.

Two data sets are neighbours if one patient's images and labels are replaced by nothing, which
gives a gradient of 0; how many patients a site has is public ("zero-out", Kairouz et al. 2021,
Practical and private deep learning without sampling or shuffling, section 2). The rate is the same
at every site, and so are steps, noise and the guarantee.

Source: Abadi et al. 2016, Deep learning with differential privacy, algorithm 1.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic import model_validator

from common.codec import record

Epsilon = Annotated[float, Gt(0)]
Delta = Annotated[float, Gt(0), Lt(1)]
NoiseMultiplier = Annotated[float, Gt(0)]
SamplingRate = Annotated[float, Gt(0), Le(1)]


@record
class PatientPrivacy:
    """Patient-level DP-SGD at every training site; either `epsilon` or `noise_multiplier`."""

    delta: Delta
    """No site with more than 1 / delta patients takes part."""
    clip_norm: Annotated[float, Gt(0)]
    """Largest L2 norm of one patient's gradient."""
    sampling_rate: SamplingRate
    """Probability with which each patient is drawn for a step."""
    patches_per_patient: Annotated[int, Ge(1)] = 1
    epsilon: Epsilon | None = None
    """What the whole run may cost, all methods and rounds; the noise follows from it."""
    noise_multiplier: NoiseMultiplier | None = None
    """Deviation of the noise in units of `clip_norm`; what the run costs follows from it."""

    @model_validator(mode="after")
    def _one_target(self) -> "PatientPrivacy":
        if (self.epsilon is None) == (self.noise_multiplier is None):
            found = "neither" if self.epsilon is None else "both"
            raise ValueError(f"expected exactly one of epsilon and noise_multiplier, found {found}")
        return self
