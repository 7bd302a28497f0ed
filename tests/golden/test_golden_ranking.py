"""Rankings and exact p-values against values that independent tools computed."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from common.evaluation.metrics import RegionScore
from common.evaluation.scores import ScoreTable
from common.ranks.case_ranks import losses_of, ranks_of
from common.ranks.permutation import MonteCarlo, permutation_p_value
from common.ranks.ranking import rank_methods

PROBLEMS = [
    "P1_fets_example_data", "P2_empty_ET", "P3_ties", "P4_missing", "P6_three_institutions",
    "P8_single",
]  # fmt: skip
REGIONS = ("WT", "TC", "ET")
EXACT = 1e-12


@pytest.fixture(scope="module")
def problems(shared: Path) -> dict[str, Any]:
    content = json.loads((shared / "golden" / "ranking.json").read_text())
    return {problem["id"]: problem for problem in content["problems"]}


def tables_of(problem: dict[str, Any]) -> dict[str, dict[str, ScoreTable]]:
    """Return scores by method and institution; the values are case x method x metric."""
    tables: dict[str, Any] = {name: defaultdict(dict) for name in problem["algorithms"]}
    where = zip(problem["cases"], problem["institution"], problem["values"], strict=True)
    for case, institution, values in where:
        for method, row in zip(problem["algorithms"], values, strict=True):
            known = [math.nan if value is None else value for value in row]
            tables[method][institution][case] = {
                region: RegionScore(known[i], known[i + 3], math.nan, math.nan)
                for i, region in enumerate(REGIONS)
            }
    return tables


@pytest.mark.real_data
def test_no_golden_problem_is_left_out(problems: dict[str, Any]) -> None:
    assert list(problems) == PROBLEMS


@pytest.mark.real_data
@pytest.mark.parametrize(("ties", "key"), [("min", "brats2020_min"), ("average", "brats_average")])
@pytest.mark.parametrize("name", PROBLEMS)
def test_brats_rankings_equal_the_golden_values(
    problems: dict[str, Any], name: str, ties: Any, key: str
) -> None:
    ranking = rank_methods(tables_of(problems[name]), scheme="brats", ties=ties)
    expected = problems[name]["expected"][key]
    assert ranking.mean_rank == pytest.approx(expected["mean_rank"], abs=EXACT)
    assert ranking.score == pytest.approx(expected["score"], abs=EXACT)
    assert ranking.final_rank == expected["final_rank"]


@pytest.mark.real_data
@pytest.mark.parametrize("ties", ["min", "average"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_ranks_per_case_and_metric_equal_the_golden_values(
    problems: dict[str, Any], name: str, ties: Any
) -> None:
    tables = tables_of(problems[name])
    pooled: list[ScoreTable] = [
        {case: rows for part in parts.values() for case, rows in part.items()}
        for parts in tables.values()
    ]
    ranks = ranks_of(losses_of(pooled, REGIONS), ties)
    # Our metrics are Dice, HD95 of each region; the golden ones all Dice, then all HD95.
    ordered = ranks[:, :, [0, 2, 4, 1, 3, 5]].transpose(1, 0, 2)
    assert ordered.tolist() == problems[name]["expected"][f"ranks_{ties}"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", PROBLEMS)
def test_p_values_equal_the_enumerated_ones(problems: dict[str, Any], name: str) -> None:
    ranking = rank_methods(tables_of(problems[name]), scheme="brats", ties="min")
    expected = problems[name]["expected"]["permutation_min"]
    assert len(ranking.permutation) == len(expected)
    for test, row in zip(ranking.permutation, expected, strict=True):
        assert (test.a, test.b) == (row["a"], row["b"])
        assert test.p_a_better == pytest.approx(row["p_a_better"], abs=EXACT)
        assert test.p_b_better == pytest.approx(row["p_b_better"], abs=EXACT)


@pytest.mark.real_data
@pytest.mark.parametrize("name", PROBLEMS)
def test_fets_rankings_equal_the_golden_values(problems: dict[str, Any], name: str) -> None:
    ranking = rank_methods(tables_of(problems[name]), scheme="fets", ties="min")
    expected = problems[name]["expected"]["fets_task2"]
    assert ranking.mean_rank == pytest.approx(expected["mean_rank"], abs=EXACT)
    assert ranking.final_rank == expected["final_rank_min"]


@pytest.mark.real_data
@pytest.mark.parametrize("name", PROBLEMS)
def test_p_values_of_metrics_flipped_one_by_one_equal_the_golden_ones(
    problems: dict[str, Any], name: str
) -> None:
    """The alternative null hypothesis, which needs exactness for 6 x cases differences."""
    problem = problems[name]
    ranks = dict(
        zip(problem["algorithms"], zip(*problem["expected"]["ranks_min"], strict=True), strict=True)
    )
    for row in problem["expected"]["permutation_min"]:
        pairs = zip(ranks[row["a"]], ranks[row["b"]], strict=True)
        differences = [a - b for one, other in pairs for a, b in zip(one, other, strict=True)]
        expected = pytest.approx(row["p_a_better_permeasure"], abs=EXACT)
        assert permutation_p_value(differences) == expected


@pytest.mark.real_data
@pytest.mark.parametrize("name", PROBLEMS)
def test_monte_carlo_p_values_are_as_near_as_another_seed(
    problems: dict[str, Any], name: str
) -> None:
    draws = MonteCarlo(n_draws=100_000, seed=0)
    scores = tables_of(problems[name])
    ranking = rank_methods(scores, scheme="brats", ties="min", monte_carlo=draws)
    expected = problems[name]["expected"]["permutation_min"]
    for test, row in zip(ranking.permutation, expected, strict=True):
        # 5 standard deviations of the difference of two shares of 100 000 draws
        assert test.p_a_better == pytest.approx(row["p_a_better_mc_seed0_B100000"], abs=0.0112)


@pytest.mark.real_data
@pytest.mark.parametrize("name", PROBLEMS)
def test_wilcoxon_tests_count_as_many_significant_ones_as_challenger(
    problems: dict[str, Any], name: str
) -> None:
    ranking = rank_methods(tables_of(problems[name]), scheme="fets", ties="min")
    methods = problems[name]["algorithms"]
    counts = {a: dict.fromkeys(methods, 0) for a in methods}
    for test in ranking.wilcoxon or ():
        counts[test.a][test.b] += test.p_holm <= 0.05
    assert counts == problems[name]["expected"]["challenger_significance_counts"]
