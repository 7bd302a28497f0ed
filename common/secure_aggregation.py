"""Whether and how updates are added unseen: `federation.secure_aggregation` of a run.

The coordinator then learns the sum of the sites' weighted changes and nothing of a single one
(`common.secure_round`). What needs single updates is refused here, each with its reason.

Why the threshold is above two thirds. Each site's own mask and each pair's mask are shared among
all n sites of a round so that any t of them can tell. A coordinator that lies could tell some
sites that a site survived and others that it dropped out, to learn both kinds of its masks. Every
honest site agrees to one set of survivors per round and answers only after t sites agreed to the
same one. Two different sets would need 2t agreements; n sites, of which c lie and agree twice, can
give at most n + c. With t > 2n/3 and c < n/3 that is impossible.

Source: Bonawitz et al. 2017, "Practical secure aggregation", section 6.2 (active adversaries).
"""

import math
from typing import Annotated

from annotated_types import Ge, Gt, Le

from common.codec import record


@record
class SecureAggregation:
    """Sites mask their updates for each other; only the sum of a round is seen."""

    min_sites: Annotated[int, Ge(3)]
    """Fewest sites of which a sum is opened; in a sum of two, each would see the other."""
    agreeing_share: Annotated[float, Gt(2 / 3), Le(1)] | None = None
    """Share of a round's sites that must agree to open its sum; just above 2/3 if absent. More
    stands against more sites that side with a lying coordinator, and endures fewer drop-outs."""

    def threshold(self, n_sites: int) -> int:
        """Return how many of a round's sites must agree, and answer, to open its sum."""
        least = 2 * n_sites // 3 + 1
        return least if self.agreeing_share is None else max(least, self._share_of(n_sites))

    def fewest_survivors(self, n_sites: int) -> int:
        """Return how many of a round's sites must have sent a masked update."""
        return max(self.min_sites, self.threshold(n_sites))

    def _share_of(self, n_sites: int) -> int:
        return math.ceil((self.agreeing_share or 0.0) * n_sites)


LOOKS_AT_SINGLE_UPDATES = {
    "ida": "weighs every update by its distance from the mean",
    "dwa": "weighs every update by its site's losses",
    "median": "sorts the updates",
    "trimmed-mean": "sorts the updates",
    "krum": "compares the updates with each other",
    "multi-krum": "compares the updates with each other",
    "bulyan": "compares the updates with each other",
    "trust": "compares every update with the root site's",
    "partial-sharing": "sends other values of every site",
    "feddyn": "keeps a state of its own for every site",
    "cyclic": "passes one site's weights to the next",
    "incremental": "passes one site's weights to the next",
    "local-only": "keeps one model per site",
}
"""Methods that a sum is not enough for, and why."""
