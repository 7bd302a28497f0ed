"""What happened to the patients of a data set, apart from what it costs (`accounting`)."""

from typing import Annotated

from annotated_types import Ge, Le

from common.codec import record
from common.privacy.settings import Delta, Epsilon, NoiseMultiplier, SamplingRate


@record
class NoisySteps:
    """Steps of one kind: the Gaussian mechanism on a Poisson sample of the patients."""

    sampling_rate: SamplingRate
    noise_multiplier: NoiseMultiplier
    """Deviation of the noise in units of what one patient can change."""
    steps: Annotated[int, Ge(0)]


@record
class Spent:
    """What training has cost the patients of one site so far. Goes with every private update."""

    epsilon: Epsilon
    """Of this run, at `delta`."""
    delta: Delta
    budget_used: Annotated[float, Ge(0), Le(1)]
    """Share of the site's whole budget, all runs of its ledger together."""
