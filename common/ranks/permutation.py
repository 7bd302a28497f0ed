"""The pairwise permutation test between two methods: are a's ranks lower than b's by chance?

Null hypothesis: in every case, independently, the two methods' names could as well be exchanged.
Then the sum of the differences d_c of their ranks is distributed as sum(+-|d_c|), and
    p(a better) = P(sum(+-|d_c|) <= sum(d_c)).
Both functions need only how often each |d_c| occurs: no order of cases, and no case's direction.

Source: BraTS 2017-2021, pairwise permutation tests; here exact for any number of cases, because
the distribution is convolved case by case on the grid of half ranks, where an enumeration of all
2^n sign flips would end at some 20 cases.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import ArrayLike

from common.codec import record

HALVES = 2  # per rank


@record
class MonteCarlo:
    """The permutation test by random sign flips, for a reader who wants it as others do it."""

    n_draws: Annotated[int, Ge(1)]
    seed: Annotated[int, Ge(0)]


def exact_p_value(counts: Mapping[int, int], observed: int) -> float:
    """Return P(sum(+-size) <= observed), each sign + or - with probability 1/2, independently.

    Args:
        counts: number of cases by size of their difference, in half ranks; above 0.
        observed: the sum of the differences with their signs, in half ranks.

    Returns:
        The p-value of "the first method is better", at most 1; 1 without cases. Equal counts give
        the same bits, in whatever order they come.
    """
    # The signed sum is 2 * flipped - total, where a random subset of the sizes is `flipped`;
    # in half ranks all of these are integers, and total + observed is even.
    total = sum(size * count for size, count in counts.items())
    probability = np.zeros(total + 1)
    probability[0] = 1.0
    for size in sorted(Counter(counts).elements()):
        shifted = np.zeros_like(probability)
        shifted[size:] = probability[:-size]
        probability = (probability + shifted) / 2
    return min(1.0, float(probability[: (total + observed) // 2 + 1].sum()))


def monte_carlo_p_value(counts: Mapping[int, int], observed: int, settings: MonteCarlo) -> float:
    """Estimate `exact_p_value` by random sign flips as (1 + hits) / (1 + draws).

    The + signs among cases of equal size are binomial, so a draw needs one number per size.
    """
    rng = np.random.default_rng(settings.seed)
    sums = np.zeros(settings.n_draws, np.int64)
    for size, count in sorted(counts.items()):
        sums += size * (2 * rng.binomial(count, 0.5, settings.n_draws) - count)
    return (1 + int(np.count_nonzero(sums <= observed))) / (1 + settings.n_draws)


def permutation_p_value(rank_differences: ArrayLike) -> float:
    """Return `exact_p_value` of differences with their signs.

    Args:
        rank_differences: d per case, multiples of one half: the ranks of one method, summed over
            the metrics, minus those of another.
    """
    halves = np.rint(HALVES * np.asarray(rank_differences, np.float64)).astype(np.int64)
    sizes = np.abs(halves[halves != 0]).tolist()
    return exact_p_value(Counter(sizes), int(halves.sum()))
