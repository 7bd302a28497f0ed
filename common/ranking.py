"""Ranking of methods: rank first, per case and metric, then aggregate; and its significance.

The metrics are Dice (higher is better) and HD95 (lower is better) of every region. Adding or
removing a method can reverse two others: a ranking names all the methods that it compared.

Sources:
    "brats": BraTS 2017-2021; Isensee et al. 2020, section 2.1: all cases count the same.
    "fets": FeTS 2022, task 2, the challenge's ranking scripts: all institutions count the same.
    Permutation test: BraTS, pairwise, the two labels exchanged independently per case.
"""

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from common.codec import record
from common.errors import ConfigError
from common.metrics import BRATS_RULES, RegionScore
from common.scores import ScoreTable

Scheme: TypeAlias = Literal["brats", "fets"]
Ties: TypeAlias = Literal["min", "average"]
"""The rank of methods with equal values: the best of their places, or the mean of them."""

Ranks: TypeAlias = NDArray[np.float64]
"""Ranks, 1 = best, axes (method, case, metric); multiples of one half."""


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


def rank_methods(
    scores: Mapping[str, Mapping[str, ScoreTable]], *, scheme: Scheme, ties: Ties
) -> Ranking:
    """Rank methods by their scores on the same cases.

    A value that one method lacks, or a case that only others scored, counts as Dice 0 and
    HD95 374 mm; so does a value that is not finite.

    Args:
        scores: by method and institution; case names need to be unique within an institution.
            Where institutions do not matter, all cases may stand under one name of any kind.
        scheme: "brats" averages the ranks of all cases; "fets" ranks the mean ranks of each
            institution and metric again and averages over metrics, then over institutions.
        ties: which rank equal values get.

    Raises:
        ConfigError: when there are no methods or no cases, or the regions differ.
    """
    regions = _shared_regions(scores)
    institutions = dict.fromkeys(name for tables in scores.values() for name in tables)
    ranks = [
        case_ranks([tables.get(name, {}) for tables in scores.values()], regions, ties)
        for name in institutions
    ]
    ranks = [part for part in ranks if part.size]
    _require_common_cases(scores)
    mean_rank = _brats_mean_rank(ranks) if scheme == "brats" else _fets_mean_rank(ranks, ties)
    methods = tuple(scores)
    return Ranking(
        scheme=scheme,
        ties=ties,
        methods=methods,
        mean_rank=dict(zip(methods, mean_rank.tolist(), strict=True)),
        score=dict(zip(methods, (mean_rank / len(methods)).tolist(), strict=True)),
        final_rank=dict(zip(methods, map(int, rankdata(mean_rank, "min")), strict=True)),
        permutation=_pairwise_tests(methods, np.concatenate(ranks, axis=1)),
    )


def _require_common_cases(scores: Mapping[str, Mapping[str, ScoreTable]]) -> None:
    """Demand that some case was scored for two methods: else every rank is of a missing case."""
    by_method = [
        {(name, case) for name, table in tables.items() for case in table}
        for tables in scores.values()
    ]
    scored = [cases for cases in by_method if cases]
    if len(scored) > 1 and sum(map(len, scored)) == len(set.union(*scored)):
        raise ConfigError("ranking: expected a case that two methods were scored on, found none")


def case_ranks(tables: list[ScoreTable], regions: tuple[str, ...], ties: Ties) -> Ranks:
    """Rank methods per case and metric.

    Args:
        tables: the scores of each method; together they name the cases.
        regions: each gives two metrics, Dice and HD95.
        ties: which rank equal values get.

    Returns:
        Axes (method, case, metric); an axis of length 0 where there are no cases.
    """
    cases = tuple(dict.fromkeys(case for table in tables for case in table))
    losses = [
        [[loss for region in regions for loss in _losses(table, case, region)] for case in cases]
        for table in tables
    ]
    shape = (len(tables), len(cases), 2 * len(regions))
    return rankdata(np.reshape(losses, shape), method=ties, axis=0)


def permutation_p_value(rank_differences: ArrayLike) -> float:
    """Return P(sum(+-d) <= sum(d)), each sign + or - with probability 1/2, independently.

    Exact for any number of cases: the distribution of the sum is convolved case by case on the
    grid of half ranks, where an enumeration of all 2^n sign flips would end at some 20 cases.

    Args:
        rank_differences: d per case, multiples of one half: the ranks of one method, summed over
            the metrics, minus those of another.

    Returns:
        The p-value of "the first method is better", above 0 and at most 1; 1 without cases.
    """
    # The signed sum is 2 * flipped - total, where a random subset of the sizes is `flipped`;
    # in half ranks all of these are integers, and total + observed is even.
    halves = np.rint(2 * np.asarray(rank_differences, np.float64)).astype(np.int64)
    sizes, observed = np.abs(halves), int(halves.sum())
    total = int(sizes.sum())
    probability = np.zeros(total + 1)
    probability[0] = 1.0
    for size in sizes[sizes > 0]:
        shifted = np.zeros_like(probability)
        shifted[size:] = probability[:-size]
        probability = (probability + shifted) / 2
    return min(1.0, float(probability[: (total + observed) // 2 + 1].sum()))


def _brats_mean_rank(ranks: list[Ranks]) -> NDArray[np.float64]:
    return np.asarray(np.concatenate(ranks, axis=1).mean(axis=(1, 2)))


def _fets_mean_rank(ranks: list[Ranks], ties: Ties) -> NDArray[np.float64]:
    # Ranks are multiples of one half: their sums are exact, and equal methods stay equal.
    again = [rankdata(part.sum(axis=1), method=ties, axis=0) for part in ranks]
    return np.asarray(np.stack(again).mean(axis=(0, 2)))


def _pairwise_tests(methods: tuple[str, ...], ranks: Ranks) -> tuple[PairwiseTest, ...]:
    per_case = dict(zip(methods, ranks.sum(axis=2), strict=True))
    return tuple(
        PairwiseTest(
            a=a,
            b=b,
            p_a_better=permutation_p_value(per_case[a] - per_case[b]),
            p_b_better=permutation_p_value(per_case[b] - per_case[a]),
        )
        for a, b in combinations(methods, 2)
    )


def _losses(table: ScoreTable, case: str, region: str) -> tuple[float, float]:
    """Return minus Dice, and HD95 in mm: less is better in both; missing values are the worst."""
    missing = BRATS_RULES.missing_case
    score: RegionScore = table.get(case, {}).get(region, missing)
    dice = score.dice if math.isfinite(score.dice) else missing.dice
    hd95_mm = score.hd95 if math.isfinite(score.hd95) else missing.hd95
    return -dice, hd95_mm


def _shared_regions(scores: Mapping[str, Mapping[str, ScoreTable]]) -> tuple[str, ...]:
    """Return the regions that every method was scored on, in the order of the first."""
    by_method = {
        method: tuple(
            dict.fromkeys(
                region for table in tables.values() for rows in table.values() for region in rows
            )
        )
        for method, tables in scores.items()
    }
    scored = {method: regions for method, regions in by_method.items() if regions}
    if not scored:
        raise ConfigError("ranking: expected scores of at least one case, found none")
    first, expected = next(iter(scored.items()))
    for method, regions in scored.items():
        if set(regions) != set(expected):
            raise ConfigError(
                f"ranking: {method}: expected the regions {','.join(expected)} as in {first}, "
                f"found {','.join(regions)}"
            )
    return expected
