"""What a ranking needs to know of an institution: sums of ranks, and nothing of a single case.

A mean of metrics cannot be turned into ranks afterwards, so an institution ranks its own cases and
lets out, for all its cases together:

* per method and metric the sum of the ranks: enough for every scheme in `rank_schemes.py`;
* per pair of methods how often each absolute difference of ranks occurred, in no order: enough for
  the permutation test. Its null distribution is that of sum(+-|d_c|) over independent signs, a
  function of these counts alone, and its observed value sum(d_c) follows from the rank sums. (The
  distribution itself, instead of the counts, would tell as much: it factors in one way only.)

Neither holds a metric, the place of a case in the data, or the direction of a case's difference.
The sums of an institution with a single case are that case's ranks, still without a metric.

Ranks are counted in halves, so that every sum is an integer and exact in any order. `RankSums` of
one pool (methods, regions, ties) are a commutative monoid under `merge`:
    merge(no_cases(pool), a) == a
    merge(a, b) == merge(b, a), up to the order of institutions
    merge(a, merge(b, c)) == merge(merge(a, b), c)
    merge of the parts of a data set == rank sums of the whole, where the parts share a name.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import combinations
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import model_validator

from common.codec import record
from common.errors import ConfigError
from common.evaluation.scores import ScoreTable
from common.ranks.case_ranks import RANKED_METRICS, Ranks, Ties, losses_of, ranks_of

HALVES = 2  # per rank


@record
class InstitutionSums:
    """The ranks of all cases of one institution, summed. May leave the site."""

    n_cases: Annotated[int, Ge(1)]
    half_ranks: dict[str, tuple[int, ...]]
    """Twice the sum over cases, by method; one number per metric: Dice and HD95 of every region."""


@record
class PairDifferences:
    """How far apart two methods are, over all cases of all institutions. May leave the site."""

    a: str
    b: str
    counts: dict[int, int]
    """Number of cases by twice the absolute difference of their ranks, summed over metrics; cases
    without a difference decide nothing and are left out."""


@record
class RankSums:
    """All that a ranking of methods needs to know of any number of cases. May leave the site."""

    methods: tuple[str, ...]
    regions: tuple[str, ...]
    ties: Ties
    institutions: dict[str, InstitutionSums]
    differences: tuple[PairDifferences, ...]
    """One per pair of methods, in the order of `methods`."""

    @property
    def n_cases(self) -> int:
        """Number of cases of all institutions."""
        return sum(part.n_cases for part in self.institutions.values())

    @property
    def n_metrics(self) -> int:
        """Length of every tuple of half ranks."""
        return len(RANKED_METRICS) * len(self.regions)

    def total(self, method: str) -> int:
        """Return twice the sum of a method's ranks over all cases and metrics."""
        return sum(sum(part.half_ranks[method]) for part in self.institutions.values())

    @model_validator(mode="after")
    def _possible(self) -> "RankSums":
        """Refuse sums that no cases can have: a damaged file, or a site that makes them up."""
        for defect in _defects(self):
            raise ValueError(defect)
        return self


def no_cases(methods: Sequence[str], regions: Sequence[str], ties: Ties) -> RankSums:
    """Return the zero of a pool."""
    return RankSums(
        methods=tuple(methods),
        regions=tuple(regions),
        ties=ties,
        institutions={},
        differences=tuple(
            PairDifferences(a=a, b=b, counts={}) for a, b in combinations(methods, 2)
        ),
    )


def sums_of(pool: RankSums, institution: str, ranks: Ranks) -> RankSums:
    """Sum the ranks of one institution's cases.

    Args:
        pool: the `no_cases` that says methods, regions and ties.
        institution: its name.
        ranks: axes (method, case, metric), in the order of the pool.

    Returns:
        The zero itself where there are no cases.
    """
    if not ranks.shape[1]:
        return pool
    halves = dict(zip(pool.methods, np.rint(HALVES * ranks).astype(np.int64), strict=True))
    sums = {method: tuple(part.sum(axis=0).tolist()) for method, part in halves.items()}
    per_case = {method: part.sum(axis=1) for method, part in halves.items()}
    return replace(
        pool,
        institutions={institution: InstitutionSums(n_cases=ranks.shape[1], half_ranks=sums)},
        differences=tuple(
            replace(pair, counts=_counted(np.abs(per_case[pair.a] - per_case[pair.b])))
            for pair in pool.differences
        ),
    )


def sums_of_tables(pool: RankSums, institution: str, tables: Mapping[str, ScoreTable]) -> RankSums:
    """Rank the methods of a pool on one institution's cases and sum the ranks.

    Args:
        pool: as in `sums_of`.
        institution: its name.
        tables: scores by method; a case that a method lacks counts as the worst.
    """
    losses = losses_of([tables[method] for method in pool.methods], pool.regions)
    return sums_of(pool, institution, ranks_of(losses, pool.ties))


def largest_difference(sums: RankSums) -> int:
    """Return the most that `PairDifferences` can be apart: best and worst in every metric."""
    return HALVES * sums.n_metrics * (len(sums.methods) - 1)


def merge(one: RankSums, other: RankSums) -> RankSums:
    """Return the sums over the cases of both.

    Raises:
        ConfigError: when they rank other methods, regions or ties.
    """
    for name in ("methods", "regions", "ties"):
        if getattr(one, name) != getattr(other, name):
            raise ConfigError(
                f"rank sums: {name}: expected {getattr(one, name)}, found {getattr(other, name)}; "
                "ranks hold within one pool of methods only"
            )
    institutions = dict(one.institutions)
    for name, part in other.institutions.items():
        institutions[name] = _added(institutions[name], part) if name in institutions else part
    differences = tuple(
        replace(x, counts=_sorted(Counter(x.counts) + Counter(y.counts)))
        for x, y in zip(one.differences, other.differences, strict=True)
    )
    return replace(one, institutions=institutions, differences=differences)


def merge_all(parts: Sequence[RankSums]) -> RankSums:
    """Return the sums over the cases of all parts, of which there is at least one."""
    return reduce(merge, parts)


def _added(one: InstitutionSums, other: InstitutionSums) -> InstitutionSums:
    return InstitutionSums(
        n_cases=one.n_cases + other.n_cases,
        half_ranks={
            method: tuple(map(sum, zip(halves, other.half_ranks[method], strict=True)))
            for method, halves in one.half_ranks.items()
        },
    )


def _counted(sizes: NDArray[np.int64]) -> dict[int, int]:
    return _sorted(Counter(sizes.tolist()))


def _sorted(counts: Counter[int]) -> dict[int, int]:
    """Sort by difference: the order of the cases must not show."""
    return {size: counts[size] for size in sorted(counts) if size}


def _defects(sums: RankSums) -> Iterator[str]:
    if len(set(sums.methods)) != len(sums.methods):
        yield "methods: expected each once"
        return
    for name, part in sums.institutions.items():
        yield from (f"institutions.{name}: {defect}" for defect in _rank_defects(sums, part))
    pairs = [(pair.a, pair.b) for pair in sums.differences]
    if pairs != list(combinations(sums.methods, 2)):
        yield "differences: expected every pair of methods once, in the order of methods"
        return
    for pair in sums.differences:
        yield from (f"differences: {pair.a}, {pair.b}: {d}" for d in _pair_defects(sums, pair))


def _rank_defects(sums: RankSums, part: InstitutionSums) -> Iterator[str]:
    """Yield what is impossible about an institution's ranks, before anything adds them up."""
    n, n_methods = part.n_cases, len(sums.methods)
    if set(part.half_ranks) != set(sums.methods):
        yield f"half_ranks: expected {', '.join(sums.methods)}"
        return
    if any(len(halves) != sums.n_metrics for halves in part.half_ranks.values()):
        yield f"half_ranks: expected {sums.n_metrics} numbers per method"
        return
    lowest, highest = HALVES * n, HALVES * n * n_methods
    if not all(lowest <= half <= highest for row in part.half_ranks.values() for half in row):
        yield f"half_ranks: expected {lowest} to {highest} for {n} cases"
    whole = n * n_methods * (n_methods + 1)  # twice 1 + ... + n_methods, of every case
    totals = [sum(column) for column in zip(*part.half_ranks.values(), strict=True)]
    if any(total > whole or (sums.ties == "average" and total != whole) for total in totals):
        yield f"half_ranks: expected {whole} over all methods, found {totals}"


def _pair_defects(sums: RankSums, pair: PairDifferences) -> Iterator[str]:
    largest = largest_difference(sums)
    if not all(0 < size <= largest and count > 0 for size, count in pair.counts.items()):
        yield f"counts: expected differences from 1 to {largest}, each counted at least once"
    if sum(pair.counts.values()) > sums.n_cases:
        yield f"counts: expected at most {sums.n_cases} cases"
    size = sum(size * count for size, count in pair.counts.items())
    difference = abs(sums.total(pair.a) - sums.total(pair.b))
    if difference > size or (size - difference) % 2:
        yield f"counts: expected a sum that fits the difference {difference} of the rank sums"
