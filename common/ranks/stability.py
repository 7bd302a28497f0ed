"""How firm is a ranking? Other cases, or one method less, and who is where then.

Sources:
    Bootstrap over cases: Wiesenfarth et al. 2021, challengeR; here within institutions, so that
        each keeps its number of cases.
    One method less: adding a method to the pool can reverse two others (Maier-Hein et al. 2018).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from scipy.stats import rankdata

from common.codec import record
from common.ranks.case_ranks import Ranks, Ties, ranks_of
from common.ranks.rank_schemes import Scheme, mean_ranks

LEVEL = 0.95  # of the intervals; customary


@record
class Resampling:
    """How the cases are drawn again."""

    n_samples: Annotated[int, Ge(1)]
    seed: Annotated[int, Ge(0)]


@record
class RankInterval:
    """Percentile interval of a method's place and mean rank. May leave the site."""

    final_rank: tuple[int, int]
    mean_rank: tuple[float, float]
    first_fraction: float
    """Share of the samples in which the method is first, also together with others."""


@record
class Bootstrap:
    """What becomes of the ranking when other cases are drawn. May leave the site."""

    n_samples: int
    seed: int
    level: float
    intervals: dict[str, RankInterval]


@record
class WithoutMethod:
    """The ranking of the others when one method leaves the pool. May leave the site."""

    without: str
    final_rank: dict[str, int]
    changed: tuple[tuple[str, str], ...]
    """Pairs of the others whose order is another than in the whole pool, ties included."""


def bootstrap(
    ranks: Mapping[str, Ranks],
    methods: Sequence[str],
    settings: Resampling,
    *,
    scheme: Scheme,
    ties: Ties,
    convergence: Sequence[float] | None = None,
) -> Bootstrap:
    """Draw the cases of every institution again, with replacement, and rank each time.

    Args:
        ranks: by institution, axes (method, case, metric).
        methods: names along the first axis.
        settings: how often, and the seed that gives the same intervals again.
        scheme: of the ranking.
        ties: of the ranking.
        convergence: as in `mean_ranks`.
    """
    rng = np.random.default_rng(settings.seed)
    halves = [_resampled(part, settings.n_samples, rng) for part in ranks.values()]
    n_cases = sum(part.shape[1] for part in ranks.values())
    means = mean_ranks(halves, n_cases, scheme=scheme, ties=ties, convergence=convergence)
    places = rankdata(means, "min", axis=-1).astype(np.int64)
    intervals = {
        method: _interval(places[:, index], means[:, index]) for index, method in enumerate(methods)
    }
    return Bootstrap(
        n_samples=settings.n_samples, seed=settings.seed, level=LEVEL, intervals=intervals
    )


def without_each(
    ranks: Mapping[str, Ranks],
    methods: Sequence[str],
    *,
    scheme: Scheme,
    ties: Ties,
    convergence: Sequence[float] | None = None,
) -> tuple[WithoutMethod, ...]:
    """Rank the others without each method in turn; empty for fewer than three methods."""
    if len(methods) < 3:
        return ()
    everyone = tuple(range(len(methods)))
    before = _places(ranks, everyone, scheme, ties, convergence)
    left_out = []
    for gone in everyone:
        others = tuple(index for index in everyone if index != gone)
        after = _places(ranks, others, scheme, ties, convergence)
        changed = [
            (methods[a], methods[b])
            for a, b in combinations(others, 2)
            if np.sign(after[a] - after[b]) != np.sign(before[a] - before[b])
        ]
        left_out.append(
            WithoutMethod(
                without=methods[gone],
                final_rank={methods[index]: place for index, place in after.items()},
                changed=tuple(changed),
            )
        )
    return tuple(left_out)


def _places(
    ranks: Mapping[str, Ranks],
    chosen: tuple[int, ...],
    scheme: Scheme,
    ties: Ties,
    convergence: Sequence[float] | None,
) -> dict[int, int]:
    """Return the final rank of some methods when only they are compared."""
    parts = [ranks_of(part[list(chosen)], ties) for part in ranks.values()]
    means = mean_ranks(
        [np.rint(2 * part.sum(axis=1)).astype(np.int64) for part in parts],
        sum(part.shape[1] for part in parts),
        scheme=scheme,
        ties=ties,
        convergence=None if convergence is None else [convergence[index] for index in chosen],
    )
    return dict(zip(chosen, map(int, rankdata(means, "min")), strict=True))


def _resampled(ranks: Ranks, n_samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return half-rank sums of resampled cases, axes (sample, method, metric).

    The order of the cases has no influence.
    """
    n_cases = ranks.shape[1]
    flat = ranks.transpose(1, 0, 2).reshape(n_cases, -1)
    ranks = ranks[:, np.lexsort(flat.T)]  # the cases' numbers are random; what is drawn is not
    draws = rng.multinomial(n_cases, np.full(n_cases, 1 / n_cases), n_samples)
    halves = np.tensordot(draws.astype(np.float64), 2 * ranks, axes=(1, 1))  # exact below 2^53
    return np.asarray(np.rint(halves), np.int64)


def _interval(places: NDArray[np.int64], means: NDArray[np.float64]) -> RankInterval:
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    low, high = np.quantile(places, tails, method="inverted_cdf").tolist()
    mean_low, mean_high = np.quantile(means, tails).tolist()
    return RankInterval(
        final_rank=(int(low), int(high)),
        mean_rank=(mean_low, mean_high),
        first_fraction=float(np.mean(places == 1)),
    )
