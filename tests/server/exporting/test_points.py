"""Numbers by name and round: whose, of which round, and when they are known."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from server.exporting.points import RoundPoints, safe
from server.exporting.reading import readable


@pytest.fixture
def points(run_dir: Callable[..., Path]) -> Callable[..., dict[str, list[tuple[int, float, int]]]]:
    """Return what gives, by method and name, (round, value, second) of every point of lines."""

    def found(*lines: object) -> dict[str, list[tuple[int, float, int]]]:
        events, _ = readable(run_dir(*lines) / "events.jsonl", 0)
        state, by_name = RoundPoints(), {}
        for timed in events:
            for point in state.points_of(timed):
                values = by_name.setdefault(f"{point.method}:{point.name}", [])
                values.append((point.step, point.value, point.time.second))
        return by_name

    return found


def test_an_undisturbed_run(points: Callable[..., dict[str, object]]) -> None:
    found = points()
    assert found["fedavg:loss/site/a"] == [(1, 1.0, 3), (2, 0.5, 6)]
    assert found["fedavg:loss/mean"] == [(1, 0.875, 5), (2, 0.4375, 10)]  # (3 * 1.0 + 0.5) / 4
    assert found["fedavg:update_norm/site/b"] == [(1, 1.5, 4), (2, 1.5, 8)]
    assert found["fedavg:seconds/site/b"] == [(1, 2.25, 4), (2, 2.25, 8)]
    assert found["fedavg:seconds/round"] == [(1, 3.5, 5), (2, 3.5, 10)]
    assert found["fedavg:upload_bytes/site/a"] == [(1, 1000.0, 3), (2, 1000.0, 6)]
    assert found["fedavg:upload_bytes/round"] == [(1, 2000.0, 5), (2, 2000.0, 10)]
    assert found["fedavg:download_bytes/round"] == [(1, 200.0, 5), (2, 200.0, 10)]
    assert found["fedavg:sites/accepted"] == [(1, 2.0, 5), (2, 2.0, 10)]
    assert found["fedavg:sites/failed"] == [(1, 0.0, 5), (2, 0.0, 10)]
    assert found["fedavg:dice/site/a"] == [(1, 0.375, 7), (2, 0.75, 11)]
    assert found["fedavg:dice/region/ET/site/b"] == [(1, 0.5, 9)]
    # the last round's mean is known when the tests begin
    assert found["fedavg:dice/mean"] == [(1, 0.5, 10), (2, 0.75, 12)]
    assert found["fedavg:dice/region/WT"] == [(1, 0.625, 10), (2, 1.0, 12)]
    assert "fedavg:epsilon/site/a" not in found


def test_a_private_round_has_no_loss_and_says_what_it_cost(
    points: Callable[..., dict[str, object]], lines: SimpleNamespace
) -> None:
    spent = {"epsilon": 1.5, "delta": 0.001, "budget_used": 0.25}
    private = lines.trained(3, 1, "a", None, 3) | {"spent": spent}
    cost = {"n_sites": 4, "epsilon": 1.875, "delta": 0.001, "warning": ""}
    found = points(
        private,
        lines.at(4, "SitePrivacySpent", method="fedavg", round=1, **cost),
        lines.finished(5, 1, 1),
    )
    assert found["fedavg:epsilon/site/a"] == [(1, 1.5, 3)]
    assert found["fedavg:budget_used/site/a"] == [(1, 0.25, 3)]
    assert found["fedavg:epsilon/site_level"] == [(1, 1.875, 4)]
    assert not [name for name in found if "loss" in name]


@pytest.mark.parametrize("loss", [{}, {"loss": 0.25}])
def test_of_a_masked_round_only_the_sum_is_known(
    points: Callable[..., dict[str, object]], lines: SimpleNamespace, loss: dict[str, float]
) -> None:
    named = {"method": "fedavg", "round": 2}
    found = points(
        lines.at(3, "SiteMasked", **named, site="a", seconds=2.0, upload_bytes=1000),
        lines.at(4, "SiteMasked", **named, site="b", seconds=4.0, upload_bytes=1001),
        lines.at(
            5,
            "SumOpened",
            **{**named, **loss, "sites": ["a", "b"], "count": 40, "dice": {"WT": 0.5, "ET": 0.25}},
            update_norm=1.5,
            seconds=0.5,
        ),
        lines.at(6, "RoundFinished", **named, n_sites=2, seconds=3.5, simulated_s=60.0),
    )
    assert found.pop("fedavg:loss/mean", []) == ([(2, 0.25, 5)] if loss else [])
    assert found == {
        "fedavg:seconds/site/a": [(2, 2.0, 3)],
        "fedavg:upload_bytes/site/a": [(2, 1000.0, 3)],
        "fedavg:download_bytes/site/a": [(2, 0.0, 3)],
        "fedavg:seconds/site/b": [(2, 4.0, 4)],
        "fedavg:upload_bytes/site/b": [(2, 1001.0, 4)],
        "fedavg:download_bytes/site/b": [(2, 0.0, 4)],
        "fedavg:update_norm/mean_change": [(2, 1.5, 5)],
        "fedavg:seconds/opening": [(2, 0.5, 5)],
        "fedavg:dice/mean": [(1, 0.375, 5)],
        "fedavg:dice/region/WT": [(1, 0.5, 5)],
        "fedavg:dice/region/ET": [(1, 0.25, 5)],
        "fedavg:seconds/round": [(2, 3.5, 6)],
        "fedavg:seconds/round_simulated": [(2, 60.0, 6)],
        "fedavg:upload_bytes/round": [(2, 2001.0, 6)],
        "fedavg:download_bytes/round": [(2, 0.0, 6)],
        "fedavg:sites/accepted": [(2, 2.0, 6)],
        "fedavg:sites/failed": [(2, 0.0, 6)],
    }


def test_a_site_that_answers_a_repeated_round_counts_once_with_its_last_answer(
    points: Callable[..., dict[str, object]], lines: SimpleNamespace
) -> None:
    found = points(
        lines.trained(3, 1, "a", 1.0, 3),
        {**lines.started, "resumed": True},
        lines.trained(6, 1, "a", 0.5, 3),
        lines.at(7, "SiteFailed", method="fedavg", round=1, site="b", code="data", reason="log"),
        lines.finished(8, 1, 1),
    )
    assert found["fedavg:loss/site/a"] == [(1, 1.0, 3), (1, 0.5, 6)]
    assert found["fedavg:loss/mean"] == [(1, 0.5, 8)]
    assert found["fedavg:upload_bytes/round"] == [(1, 1000.0, 8)]
    assert found["fedavg:sites/failed"] == [(1, 1.0, 8)]


def test_the_next_method_ends_the_validation_of_the_one_before(
    points: Callable[..., dict[str, object]], lines: SimpleNamespace
) -> None:
    found = points(
        lines.validated(3, 2, "a", 0.5, 0.25),
        lines.validated(4, 2, "b", 1.0, 0.75),
        {**lines.trained(5, 1, "a", 0.5, 3), "method": "fedprox"},
    )
    assert found["fedavg:dice/mean"] == [(2, 0.625, 5)]


def test_a_sites_own_model_stands_beside_the_shared_one(
    points: Callable[..., dict[str, object]], lines: SimpleNamespace
) -> None:
    dice = {"shared": {"WT": 0.5, "ET": 0.25}, "own": {"WT": 0.75, "ET": 0.5}}
    own = lines.at(9, "SitePersonalised", method="fedavg", site="a", n_steps=20, **dice)
    found = points(lines.finished(5, 3), own)
    assert found["fedavg:personalised/shared/site/a"] == [(3, 0.375, 9)]
    assert found["fedavg:personalised/own/site/a"] == [(3, 0.625, 9)]


def test_names_of_regions_hold_only_what_every_program_takes() -> None:
    assert safe("whole tumour/é (WT)") == "whole tumour__ _WT_"
