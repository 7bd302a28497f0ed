"""Rankings of small pools by hand, and laws."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import decode, encode
from common.errors import ConfigError
from common.evaluation.metrics import RegionScore
from common.evaluation.scores import ScoreTable
from common.ranks.case_ranks import Ties
from common.ranks.rank_schemes import Scheme
from common.ranks.ranking import PairwiseTest, Ranking, rank_methods

values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # few, so that ties are common
cases = st.lists(st.tuples(values, values, values), min_size=1, max_size=5)  # three methods


def score(dice: float, hd95_mm: float) -> RegionScore:
    return RegionScore(dice=dice, hd95=hd95_mm, sensitivity=1.0, specificity=1.0)


def table(*cases: tuple[float, float]) -> ScoreTable:
    return {f"c{i}": {"WT": score(*case)} for i, case in enumerate(cases)}


def rank_brats(methods: Mapping[str, ScoreTable], ties: Ties = "min") -> Ranking:
    pool = {method: {"": scores} for method, scores in methods.items()}
    return rank_methods(pool, scheme="brats", ties=ties)


def test_two_cases_by_hand() -> None:
    #            c0: Dice HD95   c1: Dice HD95   ranks       mean
    #  a              .9   2          .8   4     1 1 1 2     1.25
    #  b              .7   3          .6   1     2 2 2 1     1.75
    ranking = rank_brats({"a": table((0.9, 2), (0.8, 4)), "b": table((0.7, 3), (0.6, 1))})
    assert replace(ranking, wilcoxon=None, stability=None) == Ranking(
        scheme="brats",
        ties="min",
        methods=("a", "b"),
        mean_rank={"a": 1.25, "b": 1.75},
        score={"a": 0.625, "b": 0.875},
        final_rank={"a": 1, "b": 2},
        # d = -2, 0: the signed sum is at most -2 in two of four, at most 2 in four of four
        permutation=(PairwiseTest(a="a", b="b", p_a_better=0.5, p_b_better=1.0),),
        n_cases={"": 2},
    )


def test_ties_get_the_best_place_or_the_mean_place() -> None:
    methods = {"a": table((0.5, 1)), "b": table((0.5, 2)), "c": table((0.1, 3))}
    assert rank_brats(methods, "min").mean_rank == {"a": 1.0, "b": 1.5, "c": 3.0}
    assert rank_brats(methods, "average").mean_rank == {"a": 1.25, "b": 1.75, "c": 3.0}


def test_equal_methods_share_the_better_final_place() -> None:
    methods = {"a": table((0.5, 2)), "b": table((0.5, 2)), "c": table((0.1, 3))}
    assert rank_brats(methods, "average").final_rank == {"a": 1, "b": 1, "c": 3}


@pytest.mark.parametrize("absent", [math.nan, math.inf])
def test_a_missing_value_is_worse_than_the_worst_brats_distance(absent: float) -> None:
    methods = {"a": table((0.0, absent)), "b": table((0.0, 373.1287)), "c": table((absent, 1))}
    ranking = rank_brats(methods)
    # Dice: all 0 and tied; HD95: c, b, a
    assert ranking.mean_rank == {"a": 2.0, "b": 1.5, "c": 1.0}


def test_a_missing_case_and_a_missing_region_count_as_the_worst() -> None:
    both = {"c0": {"WT": score(0.1, 300), "ET": score(0.1, 300)}}
    partly = {"c0": {"WT": score(0.9, 1)}, "c1": {"ET": score(0.9, 1)}}
    ranking = rank_brats({"a": both, "b": partly})
    # c0 WT: b wins twice; c0 ET: a wins twice; c1 WT: nobody; c1 ET: b wins twice
    assert ranking.mean_rank == {"a": 12 / 8, "b": 10 / 8}


def test_a_method_without_any_case_is_last() -> None:
    assert rank_brats({"a": table((0.1, 300)), "b": {}}).final_rank == {"a": 1, "b": 2}


def test_one_method_alone_scores_one() -> None:
    ranking = rank_brats({"a": table((0.1, 300), (0.5, 3))})
    assert (ranking.score, ranking.final_rank, ranking.permutation) == ({"a": 1.0}, {"a": 1}, ())


def test_fets_lets_each_institution_count_the_same() -> None:
    # Institution "big": b beats a in both metrics of three cases; "one": a beats b in both.
    a = {"big": table(*[(0.1, 9)] * 3), "one": table((0.9, 1))}
    b = {"big": table(*[(0.9, 1)] * 3), "one": table((0.1, 9))}
    fets = rank_methods({"a": a, "b": b}, scheme="fets", ties="min")
    brats = rank_methods({"a": a, "b": b}, scheme="brats", ties="min")
    assert fets.mean_rank == {"a": 1.5, "b": 1.5}
    assert fets.final_rank == {"a": 1, "b": 1}
    assert brats.mean_rank == {"a": 1.75, "b": 1.25}


def test_cases_of_equal_name_at_two_institutions_are_two_cases() -> None:
    a = {"x": table((0.9, 1)), "y": table((0.9, 1))}
    b = {"x": table((0.1, 9)), "y": table((0.1, 9))}
    ranking = rank_methods({"a": a, "b": b}, scheme="brats", ties="min")
    assert ranking.permutation[0].p_a_better == 0.25  # two cases: 1 of 4 sign flips


def test_methods_scored_on_other_regions_are_not_compared() -> None:
    other = {"c0": {"left": score(0.5, 1)}}
    with pytest.raises(ConfigError, match="b: expected the regions WT as in a, found left"):
        rank_brats({"a": table((0.5, 1)), "b": other})


@pytest.mark.parametrize("methods", [{}, {"a": {}}])
def test_a_ranking_needs_a_case(methods: dict[str, ScoreTable]) -> None:
    with pytest.raises(ConfigError, match="expected scores of at least one case"):
        rank_brats(methods)


def test_a_ranking_survives_its_file() -> None:
    ranking = rank_brats({"a": table((0.9, 2)), "b": table((0.7, 3))}, "average")
    assert set(encode(ranking)) == {
        "scheme", "ties", "methods", "mean_rank", "score", "final_rank", "permutation",
        "n_cases", "wilcoxon", "stability",
    }  # fmt: skip
    assert decode(Ranking, encode(ranking), source="test") == ranking


@given(cases, st.sampled_from(["min", "average"]))
def test_the_order_of_cases_and_methods_does_not_matter(
    rows: list[tuple[float, float, float]], ties: Ties
) -> None:
    methods = {
        name: {f"c{i}": {"WT": score(row[m], 10 * row[m - 1])} for i, row in enumerate(rows)}
        for m, name in enumerate("abc")
    }
    there = rank_brats(methods, ties)
    back = rank_brats(
        {name: dict(reversed(methods[name].items())) for name in reversed(methods)}, ties
    )
    assert back.mean_rank == there.mean_rank
    assert back.final_rank == there.final_rank


@given(cases)
def test_average_ranks_add_up_to_the_same_in_every_pool(
    rows: list[tuple[float, float, float]],
) -> None:
    methods = {
        name: {f"c{i}": {"WT": score(row[m], 10 * row[m - 1])} for i, row in enumerate(rows)}
        for m, name in enumerate("abc")
    }
    ranking = rank_brats(methods, "average")
    assert sum(ranking.mean_rank.values()) == pytest.approx(6.0, abs=1e-12)
    assert all(1 / 3 <= value <= 1 for value in ranking.score.values())


def test_methods_that_share_no_case_are_not_ranked() -> None:
    perfect = RegionScore(1.0, 0.0, 1.0, 1.0)
    scores = {"a": {"": {"one": {"WT": perfect}}}, "b": {"": {"two": {"WT": perfect}}}}
    with pytest.raises(ConfigError, match="a case that two methods were scored on, found none"):
        rank_methods(scores, scheme="brats", ties="min")


def test_the_convergence_score_counts_three_times_in_fets_task_1() -> None:
    # Two metrics: a is first in both; b converged better: (2 + 3 x 2) / 5 against (4 + 3) / 5.
    pool = {"a": {"": table((0.9, 1))}, "b": {"": table((0.1, 9))}}
    better = {"a": 0.5, "b": 0.75}
    ranking = rank_methods(pool, scheme="fets-task1", ties="average", convergence=better)
    assert ranking.mean_rank == {"a": 1.6, "b": 1.4}
    assert ranking.final_rank == {"a": 2, "b": 1}
    assert ranking.convergence == better


def test_equal_convergence_shares_the_mean_rank() -> None:
    pool = {"a": {"": table((0.9, 1))}, "b": {"": table((0.1, 9))}}
    even = {"a": 0.5, "b": 0.5}
    ranking = rank_methods(pool, scheme="fets-task1", ties="average", convergence=even)
    assert ranking.mean_rank == {"a": 1.3, "b": 1.7}


@pytest.mark.parametrize(
    ("scheme", "convergence", "message"),
    [
        ("fets-task1", None, "expected a convergence score per method"),
        ("brats", {"a": 1.0, "b": 1.0}, "scheme 'brats': expected none"),
        ("fets-task1", {"a": 1.0}, "expected a score for each of a, b, found a"),
        ("fets-task1", {"a": 1.0, "b": math.nan}, "expected finite scores"),
    ],
)
def test_convergence_scores_that_do_not_fit_are_refused(
    scheme: Scheme, convergence: dict[str, float] | None, message: str
) -> None:
    pool = {"a": {"": table((0.9, 1))}, "b": {"": table((0.1, 9))}}
    with pytest.raises(ConfigError, match=message):
        rank_methods(pool, scheme=scheme, ties="min", convergence=convergence)
