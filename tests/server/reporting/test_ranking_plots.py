"""The plots and words about how firm a ranking is."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from common.figures import for_page
from common.ranks.permutation import MonteCarlo
from common.ranks.ranking import PairwiseTest, Ranking
from common.ranks.significance import WilcoxonTest
from common.ranks.stability import Bootstrap, RankInterval, WithoutMethod
from server.reporting.ranking_plots import in_order, places_text, ranking_plots
from server.reporting.ranking_words import permutation_sentences, stability_sentences, words_of

METHODS = ("local-only", "fedavg", "fedprox")


def wilcoxon(a: str, b: str, p_holm: float) -> WilcoxonTest:
    return WilcoxonTest(
        institution="east", region="WT", metric="dice", a=a, b=b, p=p_holm, p_holm=p_holm
    )


RANKING = Ranking(
    scheme="brats",
    ties="min",
    methods=METHODS,
    mean_rank={"fedavg": 1.25, "fedprox": 1.75, "local-only": 3.0},
    score={"fedavg": 0.4167, "fedprox": 0.5833, "local-only": 1.0},
    final_rank={"fedavg": 1, "fedprox": 2, "local-only": 3},
    permutation=(
        PairwiseTest(a="local-only", b="fedavg", p_a_better=0.9999, p_b_better=0.0004),
        PairwiseTest(a="local-only", b="fedprox", p_a_better=0.975, p_b_better=0.03125),
        PairwiseTest(a="fedavg", b="fedprox", p_a_better=0.25, p_b_better=0.8),
    ),
    n_cases={"east": 12},
    wilcoxon=(
        wilcoxon("fedavg", "local-only", 0.01),
        wilcoxon("fedavg", "local-only", 0.06),
        wilcoxon("local-only", "fedavg", 1.0),
        wilcoxon("local-only", "fedavg", 1.0),
    ),
    stability=(
        WithoutMethod(without="fedavg", final_rank={}, changed=()),
        WithoutMethod(without="local-only", final_rank={}, changed=(("fedavg", "fedprox"),)),
    ),
    bootstrap=Bootstrap(
        n_samples=100,
        seed=1,
        level=0.95,
        intervals={
            "fedavg": RankInterval(final_rank=(1, 2), mean_rank=(1.0, 1.6), first_fraction=0.9),
            "fedprox": RankInterval(final_rank=(1, 2), mean_rank=(1.4, 2.0), first_fraction=0.15),
            "local-only": RankInterval(final_rank=(3, 3), mean_rank=(3.0, 3.0), first_fraction=0),
        },
    ),
)


def texts(svg: str) -> list[str]:
    return [text.strip() for text in re.findall(r"<!--(.*?)-->", svg)]


def test_the_map_holds_every_p_value_in_the_order_of_the_ranking() -> None:
    svg = ranking_plots(RANKING)["significance"]
    ET.fromstring(svg)  # noqa: S314 - our own text
    numbers = [text for text in texts(svg) if re.fullmatch(r"(&lt;)?\d\.\d{3}", text)]
    # rows: FedAvg against FedProx and Local only; FedProx; Local only
    assert numbers == ["0.250", "&lt;0.001", "0.800", "0.031", "1.000", "0.975"]
    assert in_order(RANKING) == ["fedavg", "fedprox", "local-only"]


def test_intervals_name_the_places_that_a_method_may_have() -> None:
    found = texts(ranking_plots(RANKING)["rank-intervals"])
    assert found.count("1\N{EN DASH}2") == 2
    assert "3" in found
    assert {"FedAvg", "FedProx", "Local only", "Mean rank (1 is best)"} <= set(found)
    assert places_text((1, 1)) == "1"


def test_plots_need_two_methods_and_intervals_need_a_bootstrap() -> None:
    assert set(ranking_plots(RANKING)) == {"significance", "rank-intervals"}
    assert set(ranking_plots(replace(RANKING, bootstrap=None))) == {"significance"}
    alone = replace(RANKING, methods=("fedavg",), permutation=())
    assert ranking_plots(alone) == {}


def test_a_map_of_many_methods_has_colours_without_numbers() -> None:
    names = tuple(f"team-{number:02}" for number in range(20))
    places = {name: float(place) for place, name in enumerate(names, start=1)}
    many = replace(
        RANKING,
        methods=names,
        mean_rank=places,
        permutation=tuple(
            PairwiseTest(a=a, b=b, p_a_better=0.001, p_b_better=0.999)
            for n, a in enumerate(names)
            for b in names[n + 1 :]
        ),
        bootstrap=None,
    )
    svg = ranking_plots(many)["significance"]
    assert not [text for text in texts(svg) if text.startswith("0.")]
    assert svg.count("opacity: 0.55") == 190


def test_the_plots_are_the_same_every_time_and_take_the_pages_colour() -> None:
    one, other = ranking_plots(RANKING), ranking_plots(RANKING)
    assert one == other
    for svg in one.values():
        assert "#1b1e24" not in for_page(svg)
        assert "http" not in for_page(svg)


def test_odd_names_are_neither_formulas_nor_markup() -> None:
    odd = "$x_1$ <b>"
    renamed = replace(
        RANKING,
        methods=("fedavg", odd),
        mean_rank={"fedavg": 1.0, odd: 2.0},
        permutation=(PairwiseTest(a="fedavg", b=odd, p_a_better=0.1, p_b_better=0.9),),
        bootstrap=None,
    )
    ET.fromstring(ranking_plots(renamed)["significance"])  # noqa: S314 - our own text


def test_wilcoxon_tests_are_counted_per_pair() -> None:
    first, second, _ = words_of(RANKING, 12).pairs
    assert (first.a, first.b) == ("local-only", "fedavg")
    assert (first.wilcoxon_a, first.wilcoxon_b) == ("0 of 2", "1 of 2")
    assert (second.wilcoxon_a, second.wilcoxon_b) == ("", "")
    without = words_of(replace(RANKING, wilcoxon=None), 12)
    assert {row.wilcoxon_a for row in without.pairs} == {""}


@pytest.mark.parametrize(
    ("monte_carlo", "sentence"),
    [
        (None, "It is exact; with 12 cases it cannot fall below 0.000244."),
        (
            MonteCarlo(n_draws=999, seed=3),
            "from 999 random exchanges (seed 3); with 12 cases it cannot fall below 0.001",
        ),
    ],
)
def test_the_words_say_how_p_values_were_made(
    monte_carlo: MonteCarlo | None, sentence: str
) -> None:
    assert sentence in permutation_sentences(replace(RANKING, monte_carlo=monte_carlo), 12)


def test_an_order_that_hangs_on_another_method_is_admitted() -> None:
    assert stability_sentences(RANKING) == (
        "The order hangs on the pool: without Local only, the order of FedAvg and FedProx is "
        "another."
    )
    firm = replace(RANKING, stability=RANKING.stability[:1])  # type: ignore[index]
    assert stability_sentences(firm).startswith("Leaving any one method out")
    assert stability_sentences(replace(RANKING, stability=None)) == ""
