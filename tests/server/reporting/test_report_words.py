"""The report's sentences say what the numbers say, also when they are disappointing."""

from dataclasses import replace

from common.ranks.ranking import PairwiseTest, Ranking
from server.events import FloorMeasured
from server.reporting.floors import FloorComparison
from server.reporting.report_words import (
    bytes_text,
    decimals,
    duration_text,
    floor_sentence,
    p_text,
    upwards,
    winner_sentence,
)
from server.reporting.sources import without_sources

RANKING = Ranking(
    scheme="brats",
    ties="min",
    methods=("fedavg", "fedprox", "local-only"),
    mean_rank={"fedavg": 1.25, "fedprox": 1.75, "local-only": 3.0},
    score={"fedavg": 0.4167, "fedprox": 0.5833, "local-only": 1.0},
    final_rank={"fedavg": 1, "fedprox": 2, "local-only": 3},
    permutation=(PairwiseTest(a="fedavg", b="fedprox", p_a_better=0.25, p_b_better=0.75),),
)


def _comparison(**mean_dice: float) -> FloorComparison:
    floor = FloorMeasured(
        site="east", region="WT", channel="flair", mean_dice=0.6123, threshold=0.71
    )
    return FloorComparison(floor, mean_dice)


def test_a_floor_that_was_not_beaten_is_admitted() -> None:
    assert without_sources(floor_sentence([_comparison(fedavg=0.7, fedprox=0.5)])).startswith(
        "Only FedAvg beats the learning-free floor on whole tumour at east"
    )
    none = without_sources(floor_sentence([_comparison(fedavg=0.6123, fedprox=0.5)]))
    assert none.startswith("No federated model beats the learning-free floor")
    assert "FedAvg 0.612 and FedProx 0.500, floor 0.612" in none


def test_a_floor_without_a_tested_model_is_not_called_beaten() -> None:
    assert without_sources(floor_sentence([_comparison()])).endswith(
        "is missing: no federated model was tested."
    )


def test_methods_with_equal_rank_share_the_first_place() -> None:
    tie = replace(RANKING, final_rank={"fedavg": 1, "fedprox": 1, "local-only": 3})
    assert without_sources(winner_sentence(tie, 3)).startswith(
        "FedAvg and FedProx share the first place among 3 methods on 3 held-out cases"
    )


def test_one_method_alone_does_not_win() -> None:
    alone = replace(RANKING, methods=("fedavg",), permutation=())
    assert without_sources(winner_sentence(alone, 3)).endswith("there is no winner.")


def test_numbers_are_printed_as_people_read_them() -> None:
    assert bytes_text(100) == "100 B"
    assert bytes_text(3 * 2**20) == "3.0 MiB"
    assert duration_text(59.96) == "1 min 0 s"
    assert duration_text(3.25) == "3.2 s"
    assert duration_text(7260) == "2 h 1 min"
    assert decimals(float("nan"), 3) == "\N{EN DASH}"
    assert upwards(7.6101, 2) == "7.62"
    assert upwards(1.1, 2) == "1.10"
    assert p_text(0.0004) == "p\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}0.001"
