"""From sums of ranks to the mean ranks of methods: the second half of "rank, then aggregate".

Sources:
    "brats": BraTS 2017-2021; Isensee et al. 2020, section 2.1: all cases count the same.
    "fets": FeTS 2022, task 2, the challenge's ranking scripts: all institutions count the same.
    "fets-task1": FeTS 2022, task 1: as "brats", and the rank of the convergence score (higher is
        better) counts three times beside the metrics.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from common.errors import ConfigError
from common.ranks.case_ranks import Ties

Scheme: TypeAlias = Literal["brats", "fets", "fets-task1"]

CONVERGENCE_WEIGHT = 3  # FeTS 2022, task 1: "communication cost" counts as much as three metrics
CUSTOMARY_TIES: Final[Mapping[Scheme, Ties]] = {
    "brats": "min",  # as nnU-Net's own ranking of BraTS 2020
    "fets": "min",  # the scripts of task 2
    "fets-task1": "average",  # the scripts of task 1
}

HalfRanks: TypeAlias = NDArray[np.int64]
"""Twice the sums of ranks over an institution's cases, axes (..., method, metric)."""
MeanRanks: TypeAlias = NDArray[np.float64]
"""Axes (..., method); 1 (best in everything) to the number of methods."""


def mean_ranks(
    halves: Sequence[HalfRanks],
    n_cases: int,
    *,
    scheme: Scheme,
    ties: Ties,
    convergence: Sequence[float] | None = None,
) -> MeanRanks:
    """Aggregate sums of ranks. Methods that are equal by integers get equal means, bit for bit.

    Args:
        halves: per institution; leading axes (resamples) are kept.
        n_cases: of all institutions together, above 0.
        scheme: see the module.
        ties: which rank equal values get where ranks are ranked again.
        convergence: score per method, higher is better; needed by "fets-task1" and by it only.

    Raises:
        ConfigError: when the convergence scores are missing, or given for another scheme.
    """
    check_convergence(scheme, convergence)
    if scheme == "fets":
        again = [rankdata(part, method=ties, axis=-2) for part in halves]
        return np.asarray(np.stack(again).mean(axis=(0, -1)))
    sums = np.asarray(sum(part.sum(axis=-1) for part in halves), np.float64)
    n_metrics = halves[0].shape[-1]
    if convergence is None:
        return np.asarray(sums / (2 * n_cases * n_metrics))
    ranks = rankdata(-np.asarray(convergence, np.float64), method=ties)
    weighted = sums + 2 * n_cases * CONVERGENCE_WEIGHT * ranks
    return np.asarray(weighted / (2 * n_cases * (n_metrics + CONVERGENCE_WEIGHT)))


def check_convergence(scheme: Scheme, convergence: Sequence[float] | None) -> None:
    """Demand finite convergence scores where a scheme ranks them, and none elsewhere.

    Raises:
        ConfigError: when it is otherwise.
    """
    if (scheme == "fets-task1") != (convergence is not None):
        expected = "a convergence score per method" if convergence is None else "none"
        raise ConfigError(f"convergence: scheme {scheme!r}: expected {expected}")
    if convergence is not None and not np.isfinite(convergence).all():
        raise ConfigError("convergence: expected finite scores")
