"""Sums of held-out sites as vectors: they add up, ranks exactly and metrics within the bound."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.codec import decode, encode
from common.errors import DataError, MessageError
from common.evaluation.metric_sums import MAX_CASES, MeanAndSd, MetricSum, metric_sum
from common.evaluation.metrics import RegionScore
from common.ranks.case_ranks import Ties
from common.ranks.held_out_sums import (
    HeldOutSums,
    from_vector,
    held_out_sums,
    n_words,
    results_of,
    to_vector,
)
from common.ranks.rank_sums import no_cases
from common.ranks.ranking import rank_by_sums, rank_methods
from common.secure_sum import (
    MaskKey,
    Roster,
    Words,
    added,
    masked,
    new_private_key,
    public_key_of,
)

METHODS = ("a", "b", "c")
REGIONS = ("WT", "ET")
SITES = ("north", "south", "east")
Case = dict[str, dict[str, RegionScore]]

few = st.sampled_from([0.0, 0.25, 1 / 3, 1.0])  # so that ties are common
region_scores = st.builds(
    lambda dice, mm: RegionScore(dice, mm, 1.0, 1.0),
    few | st.floats(0, 1),
    few | st.floats(0, 374),
)
rows = st.fixed_dictionaries(dict.fromkeys(REGIONS, region_scores))
one_case = st.fixed_dictionaries(dict.fromkeys(METHODS, rows))
federations = st.fixed_dictionaries(
    {site: st.lists(one_case, min_size=1, max_size=5) for site in SITES}
)


def tables(cases: Sequence[Case]) -> dict[str, dict[str, dict[str, RegionScore]]]:
    return {m: {f"c{n}": case[m] for n, case in enumerate(cases)} for m in METHODS}


def part(site: str, cases: Sequence[Case], ties: Ties = "min") -> HeldOutSums:
    pool = no_cases(METHODS, REGIONS, ties)
    return held_out_sums(pool, site, tables(cases), {"WT": 0, "ET": len(cases)})


def summed(vectors: Sequence[Words], ties: Ties = "min") -> HeldOutSums:
    pool = no_cases(METHODS, REGIONS, ties)
    return from_vector(added(vectors, n_words(pool)), pool, "all")


@settings(max_examples=30)
@given(federations, st.sampled_from(["min", "average"]))
def test_the_sum_of_vectors_ranks_as_all_cases_do(
    federation: Mapping[str, Sequence[Case]], ties: Ties
) -> None:
    vectors = [to_vector(part(site, cases, ties)) for site, cases in federation.items()]
    together = rank_by_sums(summed(vectors, ties).ranks, scheme="brats")
    scores = {
        method: {site: tables(cases)[method] for site, cases in federation.items()}
        for method in METHODS
    }
    pooled = rank_methods(scores, scheme="brats", ties=ties)
    for field in ("mean_rank", "score", "final_rank", "permutation"):
        assert getattr(together, field) == getattr(pooled, field)
    assert together.n_cases == {"all": sum(map(len, federation.values()))}


@settings(max_examples=30)
@given(federations)
def test_mean_and_deviation_are_those_of_all_cases_within_the_stated_bound(
    federation: Mapping[str, Sequence[Case]],
) -> None:
    cases = [case for some in federation.values() for case in some]
    sums = summed([to_vector(part(site, some)) for site, some in federation.items()])
    results = results_of(sums)
    assert [(r.region, r.method) for r in results] == [(r, m) for r in REGIONS for m in METHODS]
    for result in results:
        dice = [case[result.method][result.region].dice for case in cases]
        hd95 = [case[result.method][result.region].hd95 for case in cases]
        for values, told, unit in ((dice, result.dice, 2.0**-20), (hd95, result.hd95, 2.0**-8)):
            assert abs(told.mean - fmean(values)) <= unit / 2 + 1e-12
            assert abs(told.sd - stdev(values)) <= unit / math.sqrt(2) + 1e-9
        assert result.n_empty_references == (len(cases) if result.region == "ET" else 0)


@settings(max_examples=30)
@given(federations)
def test_the_sum_of_masked_vectors_is_the_plain_sum(
    federation: Mapping[str, Sequence[Case]],
) -> None:
    vectors = {site: to_vector(part(site, cases)) for site, cases in federation.items()}
    private = {site: new_private_key() for site in SITES}
    keys = tuple(MaskKey(site=site, public_key=public_key_of(private[site])) for site in SITES)
    roster = Roster(nonce="0" * 32, keys=keys)
    told = [masked(vectors[site], site, private[site], "run", roster, "question") for site in SITES]
    assert summed(told) == summed([*vectors.values()])


@given(st.lists(one_case, min_size=1, max_size=5))
def test_a_vector_holds_all_of_a_sites_sums(cases: Sequence[Case]) -> None:
    sums = part("north", cases)
    pool = no_cases(METHODS, REGIONS, "min")
    assert from_vector(to_vector(sums), pool, "north") == sums
    assert decode(HeldOutSums, encode(sums), source="test") == sums


def test_the_length_of_a_vector_tells_only_methods_and_regions() -> None:
    # 1 + 3 methods x 4 metrics + 3 pairs x differences up to 2 x 4 x 2 + 2 + 4 x 6
    assert n_words(no_cases(METHODS, REGIONS, "min")) == 87
    assert n_words(no_cases(("a",), REGIONS, "min")) == 15


def test_the_sums_of_two_values_by_hand() -> None:
    sums = metric_sum([0.25, 0.75], 2.0**-20)
    assert sums == MetricSum(total=2**20, squares=2**36 + 9 * 2**36)
    assert sums.spread(2, 2.0**-20) == MeanAndSd(mean=0.5, sd=math.sqrt(0.125))
    assert metric_sum([373.128663], 2.0**-8).spread(1, 2.0**-8).sd == 0.0


def test_the_error_of_a_mean_can_be_half_a_unit() -> None:
    halfway = 3 * 2.0**-9  # mm
    assert metric_sum([halfway], 2.0**-8).spread(1, 2.0**-8).mean == halfway + 2.0**-9


@pytest.mark.parametrize("value", [-0.01, 1.01, math.inf, math.nan])
def test_a_value_that_sums_cannot_hold_stops_the_site(value: float) -> None:
    with pytest.raises(DataError, match="expected values from 0 to 1 in every case, found another"):
        metric_sum([0.5, value], 2.0**-20)


def test_more_cases_than_sums_can_hold_stop_the_site() -> None:
    perfect = {"WT": RegionScore(1.0, 0.0, 1.0, 1.0)}
    pool = no_cases(("a",), ("WT",), "min")
    many = {"a": {f"c{number}": perfect for number in range(MAX_CASES + 1)}}
    with pytest.raises(DataError, match="expected at most 8192 cases, found 8193"):
        held_out_sums(pool, "north", many, {"WT": 0})


GOOD = to_vector(
    part("n", [dict.fromkeys(METHODS, dict.fromkeys(REGIONS, RegionScore(0.5, 2.0, 1.0, 1.0)))])
).view(np.int64)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, 0, "of 0 cases"),
        (0, -1, "of -1 cases"),
        (0, 2**62, "cases"),
        (1, 7, "contradict"),  # 2 x 1 to 2 x 3 half ranks of one case
        (13, 1, "contradict"),  # a difference that the rank sums do not show
        (61, 2, "no such cases"),  # empty references of one case
        (61, -1, "no such cases"),
        (63, -1, "contradict"),
        (63, 2**20 + 1, "no such cases"),  # Dice above 1
        (64, 0, "no such cases"),  # squares that are smaller than the mean's
        (64, 2**62, "no such cases"),
        (64, 2**38 + 1, "no such cases"),  # odd, where the sum is even
    ],
)
def test_a_sum_that_no_cases_can_have_is_refused(place: int, value: int, told: str) -> None:
    vector = GOOD.copy()
    vector[place] = value
    with pytest.raises(MessageError, match=f"metrics: implausible.*{told}"):
        summed([vector.view(np.uint64)])
    summed([GOOD.view(np.uint64)])


def test_a_single_masked_vector_is_no_sum() -> None:
    private = [new_private_key() for _ in SITES]
    keys = tuple(
        MaskKey(site=site, public_key=public_key_of(key))
        for site, key in zip(SITES, private, strict=True)
    )
    told = masked(
        GOOD.view(np.uint64), "north", private[0], "run", Roster(nonce="0" * 32, keys=keys)
    )
    with pytest.raises(MessageError, match="implausible"):
        summed([told])


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(MessageError, match="expected 87 numbers"):
        from_vector(np.zeros(86, np.uint64), no_cases(METHODS, REGIONS, "min"), "all")
