"""Site-level differential privacy: what the coordinator promises to whole sites.

The unit is a site with all its patients, and the promise is made against those who see models, not
against the coordinator, who sees every update. Each round clips every site's change to L2 norm
`clip_norm`, adds normal noise of deviation `noise_multiplier * clip_norm` to their sum once, and
divides by the number of sites that were asked, which is public.

Source: McMahan et al. 2018, Learning differentially private recurrent language models.
"""

from typing import Annotated

from annotated_types import Gt

from common.codec import record
from common.privacy.settings import Delta, NoiseMultiplier

PLAIN_MEAN = ("fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi")
"""Methods that use nothing of the updates but their mean."""
FEWEST_MEANINGFUL = 100  # sites; McMahan et al. 2018 need thousands for an epsilon below 10


@record
class SiteLevelPrivacy:
    """Noise at the coordinator that hides whether a site took part."""

    clip_norm: Annotated[float, Gt(0)]
    """Largest L2 norm of one site's change of the weights in a round."""
    noise_multiplier: NoiseMultiplier
    """Deviation of the noise in units of `clip_norm`."""
    delta: Delta
