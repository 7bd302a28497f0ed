"""Ranking of methods: rank first, per case and metric, then aggregate; and its significance.

Adding or removing a method can reverse two others: a ranking names all the methods it compared.
A ranking follows from `RankSums` alone, so that sites need not release a case's metrics; where the
metrics are at hand, it also says how firm it is.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from common.codec import record
from common.errors import ConfigError
from common.ranks.case_ranks import Pool, Scores, Ties, pool_of
from common.ranks.permutation import MonteCarlo, exact_p_value, monte_carlo_p_value
from common.ranks.rank_schemes import Scheme, mean_ranks
from common.ranks.rank_sums import RankSums, merge, no_cases, sums_of
from common.ranks.significance import WilcoxonTest, wilcoxon_tests
from common.ranks.stability import Bootstrap, Resampling, WithoutMethod, bootstrap, without_each


@record
class PairwiseTest:
    """One-sided p-values of the permutation test between two methods. May leave the site."""

    a: str
    b: str
    p_a_better: float
    p_b_better: float


@record
class Ranking:
    """The outcome of a comparison, as in ``ranking.json``. May leave the site."""

    scheme: Scheme
    ties: Ties
    methods: tuple[str, ...]
    """All methods of the pool: the ranks hold within it only."""
    mean_rank: dict[str, float]
    """1 (best in everything) to the number of methods."""
    score: dict[str, float]
    """Mean rank divided by the number of methods."""
    final_rank: dict[str, int]
    """Place by mean rank; methods with equal mean rank share the better place."""
    permutation: tuple[PairwiseTest, ...]
    """Every pair once; tests sums of ranks over cases, whatever the scheme."""
    n_cases: dict[str, int] | None = None
    """By institution."""
    monte_carlo: MonteCarlo | None = None
    """How the permutation test was estimated; None where it is exact."""
    convergence: dict[str, float] | None = None
    """By method, for the scheme that ranks it."""
    wilcoxon: tuple[WilcoxonTest, ...] | None = None
    """This and the following need the metrics of cases: absent where only rank sums are known."""
    stability: tuple[WithoutMethod, ...] | None = None
    bootstrap: Bootstrap | None = None


def rank_methods(
    scores: Scores,
    *,
    scheme: Scheme,
    ties: Ties,
    convergence: Mapping[str, float] | None = None,
    monte_carlo: MonteCarlo | None = None,
    resampling: Resampling | None = None,
) -> Ranking:
    """Rank methods by their scores on the same cases, and say how firm the ranking is.

    A value that one method lacks, or a case that only others scored, counts as Dice 0 and
    HD95 374 mm; so does a value that is not finite.

    Args:
        scores: by method and institution; case names need to be unique within an institution.
            Where institutions do not matter, all cases may stand under one name of any kind.
        scheme: see `common.ranks.rank_schemes`.
        ties: which rank equal values get.
        convergence: by method, for the scheme "fets-task1".
        monte_carlo: how to estimate the permutation test; exact if absent.
        resampling: how to draw bootstrap intervals of the ranks; none if absent.

    Raises:
        ConfigError: when there are no methods or no cases, or the regions differ.
    """
    pool = pool_of(scores)
    ranking = rank_by_sums(
        pool_sums(pool, ties), scheme=scheme, convergence=convergence, monte_carlo=monte_carlo
    )
    ranks, order = pool.ranks(ties), _in_order(convergence, pool.methods)
    return replace(
        ranking,
        wilcoxon=wilcoxon_tests(pool),
        stability=without_each(ranks, pool.methods, scheme=scheme, ties=ties, convergence=order),
        bootstrap=bootstrap(
            ranks, pool.methods, resampling, scheme=scheme, ties=ties, convergence=order
        )
        if resampling
        else None,
    )


def rank_by_sums(
    sums: RankSums,
    *,
    scheme: Scheme,
    convergence: Mapping[str, float] | None = None,
    monte_carlo: MonteCarlo | None = None,
) -> Ranking:
    """Rank methods by sums of ranks: the same bits as from the cases themselves.

    Raises:
        ConfigError: when there are no cases.
    """
    if not (sums.methods and sums.institutions):
        raise ConfigError("ranking: expected scores of at least one case, found none")
    methods, parts = sums.methods, sums.institutions.values()
    means = mean_ranks(
        [np.array([part.half_ranks[method] for method in methods]) for part in parts],
        sums.n_cases,
        scheme=scheme,
        ties=sums.ties,
        convergence=_in_order(convergence, methods),
    )
    return Ranking(
        scheme=scheme,
        ties=sums.ties,
        methods=methods,
        mean_rank=dict(zip(methods, means.tolist(), strict=True)),
        score=dict(zip(methods, (means / len(methods)).tolist(), strict=True)),
        final_rank=dict(zip(methods, map(int, rankdata(means, "min")), strict=True)),
        permutation=_pairwise_tests(sums, monte_carlo),
        n_cases={name: part.n_cases for name, part in sums.institutions.items()},
        monte_carlo=monte_carlo,
        convergence=dict(convergence) if convergence else None,
    )


def pool_sums(pool: Pool, ties: Ties) -> RankSums:
    """Return the rank sums of all institutions of a pool."""
    sums = no = no_cases(pool.methods, pool.regions, ties)
    for name, ranks in pool.ranks(ties).items():
        sums = merge(sums, sums_of(no, name, ranks))
    return sums


def _pairwise_tests(sums: RankSums, monte_carlo: MonteCarlo | None) -> tuple[PairwiseTest, ...]:
    def p_value(counts: Mapping[int, int], observed: int) -> float:
        if monte_carlo is None:
            return exact_p_value(counts, observed)
        return monte_carlo_p_value(counts, observed, monte_carlo)

    tests = []
    for (a, b), pair in zip(combinations(sums.methods, 2), sums.differences, strict=True):
        observed = sums.total(a) - sums.total(b)
        p_a, p_b = p_value(pair.counts, observed), p_value(pair.counts, -observed)
        tests.append(PairwiseTest(a=a, b=b, p_a_better=p_a, p_b_better=p_b))
    return tuple(tests)


def _in_order(
    convergence: Mapping[str, float] | None, methods: tuple[str, ...]
) -> list[float] | None:
    """Return the convergence scores in the order of the methods.

    Raises:
        ConfigError: when they are of other methods.
    """
    if convergence is None:
        return None
    if set(convergence) != set(methods):
        raise ConfigError(
            f"convergence: expected a score for each of {', '.join(methods)}, "
            f"found {', '.join(convergence)}"
        )
    return [convergence[method] for method in methods]
