"""Is one method better than another at an institution, metric by metric?

One-sided paired Wilcoxon signed-rank tests over the cases of one institution, for every metric and
every ordered pair of methods; p-values are corrected by Holm's method over the pairs of the same
institution and metric.

Source: FeTS 2022, which uses challengeR (Wiesenfarth et al. 2021): normal approximation with
continuity correction, differences of zero dropped.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from common.codec import record
from common.ranks.case_ranks import RANKED_METRICS, Losses, Pool, RankedMetric


@record
class WilcoxonTest:
    """Is `a` better than `b` in this metric at this institution? May leave the site."""

    institution: str
    region: str
    metric: RankedMetric
    a: str
    b: str
    p: float
    p_holm: float
    """Corrected for all ordered pairs of this institution, region and metric."""


def wilcoxon_tests(pool: Pool) -> tuple[WilcoxonTest, ...]:
    """Test every ordered pair of methods per institution, region and metric."""
    return tuple(
        test for institution in pool.losses for test in _institution_tests(pool, institution)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method, in their order."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected.tolist()


def _institution_tests(pool: Pool, institution: str) -> Iterator[WilcoxonTest]:
    metrics = [(region, metric) for region in pool.regions for metric in RANKED_METRICS]
    pairs = list(permutations(range(len(pool.methods)), 2))
    for place, (region, metric) in enumerate(metrics):
        p_values = _p_values(pool.losses[institution], place, pairs)
        for (a, b), p, p_holm in zip(pairs, p_values, holm(p_values), strict=True):
            yield WilcoxonTest(
                institution=institution,
                region=region,
                metric=metric,
                a=pool.methods[a],
                b=pool.methods[b],
                p=p,
                p_holm=p_holm,
            )


def _p_values(losses: Losses, place: int, pairs: Sequence[tuple[int, int]]) -> list[float]:
    return [_p_less(losses[a, :, place] - losses[b, :, place]) for a, b in pairs]


def _p_less(differences: NDArray[np.float64]) -> float:
    """Return the p-value of losses that are less; 1 where all are equal."""
    if not differences.any():
        return 1.0
    test = wilcoxon(differences, alternative="less", correction=True, method="approx")
    return float(test.pvalue)
