"""Rank sums: laws of the monoid, the federated ranking is the pooled one, nonsense is refused."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import decode, encode
from common.errors import ConfigError
from common.evaluation.metrics import RegionScore
from common.ranks.case_ranks import Ties, losses_of, pool_of, ranks_of
from common.ranks.permutation import MonteCarlo
from common.ranks.rank_schemes import Scheme
from common.ranks.rank_sums import (
    InstitutionSums,
    PairDifferences,
    RankSums,
    merge,
    merge_all,
    no_cases,
    sums_of,
)
from common.ranks.ranking import pool_sums, rank_by_sums, rank_methods

METHODS = ("a", "b", "c")
REGIONS = ("WT", "ET")
Case = dict[str, dict[str, RegionScore] | None]

values = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan])  # few, so that ties are common
region_scores = st.builds(
    lambda dice, mm: RegionScore(dice, 8 * mm, 1.0, 1.0), values, st.one_of(values, st.floats(0, 9))
)
rows = st.fixed_dictionaries(dict.fromkeys(REGIONS, region_scores))
# A case that every method lacks is no case; method "a" always submits.
cases = st.lists(
    st.fixed_dictionaries({"a": rows, "b": st.none() | rows, "c": rows}), min_size=1, max_size=9
)
partitions = st.lists(st.sampled_from(["north", "south", "east"]), min_size=9, max_size=9)
ties = st.sampled_from(["min", "average"])


def tables(some: Sequence[tuple[int, Case]]) -> dict[str, dict[str, dict[str, RegionScore]]]:
    """Return the scores of each method; a case that it did not submit is absent."""
    return {
        method: {f"c{number}": case[method] for number, case in some if case[method]}
        for method in METHODS
    }


def site_sums(name: str, some: Sequence[tuple[int, Case]], ties: Ties) -> RankSums:
    """Do what a site does: rank its own cases, without a look at any other site."""
    losses = losses_of(list(tables(some).values()), REGIONS)
    return sums_of(no_cases(METHODS, REGIONS, ties), name, ranks_of(losses, ties))


def by_site(all_cases: list[Case], partition: list[str]) -> dict[str, list[tuple[int, Case]]]:
    parts: dict[str, list[tuple[int, Case]]] = {}
    for number, (case, site) in enumerate(zip(all_cases, partition, strict=False)):
        parts.setdefault(site, []).append((number, case))
    return parts


def test_the_sums_of_two_cases_by_hand() -> None:
    def row(dice: float, mm: float) -> dict[str, RegionScore]:
        return {"WT": RegionScore(dice, mm, 1.0, 1.0)}

    #        c0: Dice HD95   c1: Dice HD95    ranks c0  c1
    #  a          .9   2          .8   4          1 1   1 2
    #  b          .7   3          .8   1          2 2   1 1
    a = {"c0": row(0.9, 2), "c1": row(0.8, 4)}
    b = {"c0": row(0.7, 3), "c1": row(0.8, 1)}
    pool = pool_of({"a": {"here": a}, "b": {"here": b}})
    assert pool_sums(pool, "min") == RankSums(
        methods=("a", "b"),
        regions=("WT",),
        ties="min",
        institutions={"here": InstitutionSums(n_cases=2, half_ranks={"a": (4, 6), "b": (6, 6)})},
        # d = -2, 1 ranks: 4 and 2 halves
        differences=(PairDifferences(a="a", b="b", counts={2: 1, 4: 1}),),
    )


@given(cases, partitions, ties, st.sampled_from(["brats", "fets"]))
def test_the_ranking_of_merged_sums_is_the_ranking_of_the_pooled_cases(
    all_cases: list[Case], partition: list[str], ties: Ties, scheme: Scheme
) -> None:
    parts = by_site(all_cases, partition)
    merged = merge_all([site_sums(site, part, ties) for site, part in parts.items()])
    whole = {
        method: {site: tables(part)[method] for site, part in parts.items()} for method in METHODS
    }
    pooled = rank_methods(whole, scheme=scheme, ties=ties)
    federated = rank_by_sums(merged, scheme=scheme)
    # Equal, not nearly equal: every mean rank and every p-value, bit for bit.
    assert federated == replace(pooled, wilcoxon=None, stability=None)


@given(cases, partitions, ties)
def test_institutions_leave_no_trace_in_a_ranking_of_all_cases(
    all_cases: list[Case], partition: list[str], ties: Ties
) -> None:
    parts = by_site(all_cases, partition)
    merged = merge_all([site_sums(site, part, ties) for site, part in parts.items()])
    one_list = {method: {"": table} for method, table in tables(list(enumerate(all_cases))).items()}
    draws = MonteCarlo(n_draws=100, seed=3)
    for monte_carlo in (None, draws):
        pooled = rank_methods(one_list, scheme="brats", ties=ties, monte_carlo=monte_carlo)
        federated = rank_by_sums(merged, scheme="brats", monte_carlo=monte_carlo)
        unnamed = replace(pooled, wilcoxon=None, stability=None, n_cases=None)
        assert replace(federated, n_cases=None) == unnamed


@given(cases, partitions, ties)
def test_sums_are_a_commutative_monoid(
    all_cases: list[Case], partition: list[str], ties: Ties
) -> None:
    parts = by_site(all_cases, partition)
    everywhere = [site_sums(site, parts.get(site, []), ties) for site in ("north", "south", "east")]
    zero = no_cases(METHODS, REGIONS, ties)
    x, y, z = everywhere
    assert merge(zero, x) == x == merge(x, zero)
    assert merge(x, y) == merge(y, x)
    assert merge(x, merge(y, z)) == merge(merge(x, y), z)


@given(cases, st.integers(0, 9), ties)
def test_the_parts_of_one_institution_add_up_to_the_whole(
    all_cases: list[Case], n_first: int, ties: Ties
) -> None:
    numbered = list(enumerate(all_cases))
    whole = site_sums("north", numbered, ties)
    first, rest = numbered[:n_first], numbered[n_first:]
    assert merge(site_sums("north", first, ties), site_sums("north", rest, ties)) == whole


@given(cases, ties, st.randoms())
def test_the_order_of_cases_does_not_show(all_cases: list[Case], ties: Ties, random) -> None:
    shuffled = random.sample(all_cases, len(all_cases))
    one = site_sums("north", list(enumerate(all_cases)), ties)
    other = site_sums("north", list(enumerate(shuffled)), ties)
    assert encode(one) == encode(other)
    assert str(encode(one)) == str(encode(other))  # nor by the order of its entries


@given(cases, ties)
def test_sums_survive_their_file(all_cases: list[Case], ties: Ties) -> None:
    sums = site_sums("north", list(enumerate(all_cases)), ties)
    assert decode(RankSums, encode(sums), source="test") == sums


def test_sums_of_different_pools_are_not_merged() -> None:
    zero = no_cases(METHODS, REGIONS, "min")
    for other in (
        no_cases(METHODS[:2], REGIONS, "min"),
        no_cases(METHODS, REGIONS[:1], "min"),
        no_cases(METHODS, REGIONS, "average"),
    ):
        with pytest.raises(ConfigError, match="within one pool of methods only"):
            merge(zero, other)


GOOD = RankSums(
    methods=("a", "b"),
    regions=("WT",),
    ties="average",
    institutions={"north": InstitutionSums(n_cases=2, half_ranks={"a": (4, 6), "b": (8, 6)})},
    differences=(PairDifferences(a="a", b="b", counts={4: 1}),),
)


def north(n_cases: int, **half_ranks: tuple[int, ...]) -> dict[str, InstitutionSums]:
    return {"north": InstitutionSums(n_cases=n_cases, half_ranks=half_ranks)}


def differing(**counts: int) -> tuple[PairDifferences, ...]:
    sizes = {int(size.removeprefix("by_")): count for size, count in counts.items()}
    return (PairDifferences(a="a", b="b", counts=sizes),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("a", "a")}, "methods: expected each once"),
        ({"institutions": north(2, a=(4, 6))}, "institutions.north: half_ranks: expected a, b"),
        ({"institutions": north(2, a=(4,), b=(8,))}, "expected 2 numbers per method"),
        ({"institutions": north(2, a=(3, 6), b=(9, 6))}, "expected 4 to 8 for 2 cases"),
        ({"institutions": north(2, a=(5, 6), b=(8, 6))}, "expected 12 over all methods"),
        ({"differences": ()}, "expected every pair of methods once"),
        ({"differences": differing(by_6=1)}, "expected differences from 1 to 4"),
        ({"differences": differing(by_4=0)}, "each counted at least once"),
        ({"differences": differing(by_4=3)}, "expected at most 2 cases"),
        ({"differences": differing(by_2=1)}, "fits the difference 4 of the rank sums"),
        ({"differences": differing(by_3=1, by_4=1)}, "fits the difference 4 of the rank sums"),
    ],
)
def test_sums_that_no_cases_can_have_are_refused(changes: dict, message: str) -> None:
    plain = encode(GOOD) | {key: encode(value) for key, value in changes.items()}
    with pytest.raises(ConfigError, match=message):
        decode(RankSums, plain, source="site.json")


def test_absolute_differences_do_not_tell_which_method_was_better_where() -> None:
    # In the first data set a wins c0 and b wins c1; in the second the other way round.
    one = np.array([[[1.0, 1.0], [2.0, 2.0]], [[2.0, 2.0], [1.0, 1.0]]])
    zero = no_cases(("a", "b"), ("WT",), "min")
    assert sums_of(zero, "x", one) == sums_of(zero, "x", one[:, ::-1])
    assert list(combinations(zero.methods, 2)) == [("a", "b")]
