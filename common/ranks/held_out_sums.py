"""What held-out sites tell together when nobody may see one site's part, as a vector to be added.

The vector holds whole numbers: of cases; of half ranks per method and metric; of cases per pair of
methods and possible difference of ranks; of empty references per region; the sums of Dice and of
HD95 and of their squares per method and region. Its length follows from methods and regions alone.

Laws, for parts of one pool: ``from_vector(to_vector(a) + to_vector(b))`` holds the rank sums of
all cases of both, exactly, so that ranking and p-values are those of the pooled cases, bit for bit;
and the metrics' sums, whose error `common.evaluation.metric_sums` bounds.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from common.codec import record
from common.errors import DataError, MessageError
from common.evaluation.metric_sums import (
    DICE_UNIT,
    HD95_UNIT_MM,
    MAX_CASES,
    MeanAndSd,
    MetricSum,
    metric_sum,
)
from common.evaluation.scores import ScoreTable
from common.ranks.rank_sums import (
    InstitutionSums,
    RankSums,
    largest_difference,
    sums_of_tables,
)
from common.secure_sum import MAX_SITES, Words


@record
class HeldOutSums:
    """All that is summed over the cases of one institution, or of several under one name."""

    ranks: RankSums
    n_empty_references: dict[str, int]
    """Number of cases whose reference lacks a region, by region."""
    dice: dict[str, tuple[MetricSum, ...]]
    """By method, one per region."""
    hd95: dict[str, tuple[MetricSum, ...]]


@record
class RegionResult:
    """One method and region over all cases together."""

    method: str
    region: str
    n_empty_references: int
    dice: MeanAndSd
    hd95: MeanAndSd
    """In mm."""


def held_out_sums(
    pool: RankSums,
    institution: str,
    tables: Mapping[str, ScoreTable],
    n_empty_references: Mapping[str, int],
) -> HeldOutSums:
    """Return the sums over one institution's cases.

    Args:
        pool: the `no_cases` that says methods, regions and ties.
        institution: its name.
        tables: scores by method, of the same cases; at least one.
        n_empty_references: number of cases whose reference lacks a region, by region.

    Raises:
        DataError: for more cases, or other metrics, than sums can hold.
    """
    ranks = sums_of_tables(pool, institution, tables)
    if ranks.n_cases > MAX_CASES:
        raise DataError(f"secure sum: expected at most {MAX_CASES} cases, found {ranks.n_cases}")

    def sums(metric: str, unit: float) -> dict[str, tuple[MetricSum, ...]]:
        return {
            method: tuple(
                metric_sum((getattr(rows[region], metric) for rows in table.values()), unit)
                for region in pool.regions
            )
            for method, table in tables.items()
        }

    return HeldOutSums(
        ranks=ranks,
        n_empty_references={region: n_empty_references[region] for region in pool.regions},
        dice=sums("dice", DICE_UNIT),
        hd95=sums("hd95", HD95_UNIT_MM),
    )


def results_of(sums: HeldOutSums) -> tuple[RegionResult, ...]:
    """Return mean and standard deviation per region and, within it, per method."""
    n_cases = sums.ranks.n_cases
    return tuple(
        RegionResult(
            method=method,
            region=region,
            n_empty_references=sums.n_empty_references[region],
            dice=sums.dice[method][place].spread(n_cases, DICE_UNIT),
            hd95=sums.hd95[method][place].spread(n_cases, HD95_UNIT_MM),
        )
        for place, region in enumerate(sums.ranks.regions)
        for method in sums.ranks.methods
    )


def n_words(pool: RankSums) -> int:
    """Return the length of the vector for a pool's methods and regions."""
    n_methods, n_regions = len(pool.methods), len(pool.regions)
    ranks = n_methods * pool.n_metrics + len(pool.differences) * largest_difference(pool)
    return 1 + ranks + n_regions + 4 * n_methods * n_regions  # Dice, HD95 and their squares


def to_vector(sums: HeldOutSums) -> Words:
    """Return an institution's sums as whole numbers modulo 2**64."""
    return np.array([*_numbers(sums)], np.int64).view(np.uint64)


def from_vector(vector: Words, pool: RankSums, name: str) -> HeldOutSums:
    """Return the sums that a sum of vectors stands for.

    Args:
        vector: sum modulo 2**64 of institutions' vectors, without masks.
        pool: the `no_cases` that says methods, regions and ties.
        name: of all the institutions together.

    Raises:
        MessageError: when it cannot be a sum of them: masks did not cancel.
    """
    if vector.shape != (n_words(pool),):
        raise MessageError(f"metrics: expected {n_words(pool)} numbers, found {vector.shape}")
    rest = _Reader(vector.view(np.int64))
    (n_cases,) = rest.take(1)
    if not 1 <= n_cases <= MAX_CASES * MAX_SITES:
        raise MessageError(f"metrics: implausible: of {n_cases} cases")
    try:
        ranks = _ranks(rest, pool, name, n_cases)
        found = HeldOutSums(
            ranks=ranks,
            n_empty_references=dict(zip(pool.regions, rest.take(len(pool.regions)), strict=True)),
            dice=_metric(rest, pool),
            hd95=_metric(rest, pool),
        )
    except ValueError:  # the records' own laws: ranks fit the number of cases, no sum is negative
        raise MessageError("metrics: implausible: they contradict each other") from None
    metrics = [part for of in (found.dice, found.hd95) for row in of.values() for part in row]
    empty = found.n_empty_references.values()
    if not (
        all(part.is_possible(n_cases) for part in metrics) and all(0 <= n <= n_cases for n in empty)
    ):
        raise MessageError("metrics: implausible: no such cases can be")
    return found


@dataclass
class _Reader:
    """What is left of a vector that is read from its beginning."""

    left: NDArray[np.int64]

    def take(self, n: int) -> list[int]:
        taken, self.left = self.left[:n], self.left[n:]
        found: list[int] = taken.tolist()
        return found


def _numbers(sums: HeldOutSums) -> Iterator[int]:
    """Yield the numbers of the vector in the order in which they are read."""
    ranks = sums.ranks
    (part,) = ranks.institutions.values()
    yield part.n_cases
    for method in ranks.methods:
        yield from part.half_ranks[method]
    for pair in ranks.differences:
        yield from (pair.counts.get(size, 0) for size in range(1, largest_difference(ranks) + 1))
    yield from (sums.n_empty_references[region] for region in ranks.regions)
    for metric in (sums.dice, sums.hd95):
        for method in ranks.methods:
            for region in metric[method]:
                yield from (region.total, region.squares)


def _ranks(rest: _Reader, pool: RankSums, name: str, n_cases: int) -> RankSums:
    halves = {method: tuple(rest.take(pool.n_metrics)) for method in pool.methods}
    largest = largest_difference(pool)
    counted = [dict(enumerate(rest.take(largest), start=1)) for _ in pool.differences]
    return replace(
        pool,
        institutions={name: InstitutionSums(n_cases=n_cases, half_ranks=halves)},
        differences=tuple(
            replace(pair, counts={size: n for size, n in counts.items() if n})
            for pair, counts in zip(pool.differences, counted, strict=True)
        ),
    )


def _metric(rest: _Reader, pool: RankSums) -> dict[str, tuple[MetricSum, ...]]:
    found = {}
    for method in pool.methods:
        pairs = [rest.take(2) for _ in pool.regions]
        found[method] = tuple(MetricSum(total=total, squares=square) for total, square in pairs)
    return found
