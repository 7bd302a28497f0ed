"""The learning rate falls once for all sites, from what the run's events say."""

from pathlib import Path

import pytest

from common.schedules import Plateau, Poly
from server.event_log import EventLog
from server.events import SiteTrained, SumOpened
from server.plateau import rate_factor

PLATEAU = Plateau(factor=0.1, patience_rounds=1)


def trained(
    round_: int, site: str, loss: float, n_cases: int, method: str = "fedavg"
) -> SiteTrained:
    return SiteTrained(
        method=method,
        round=round_,
        site=site,
        n_cases=n_cases,
        n_steps=1,
        loss=loss,
        update_norm=1.0,
        seconds=1.0,
        upload_bytes=1,
    )


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Write three rounds whose loss, weighted by cases, is 0.5, 0.5 and 0.5."""
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for round_, small, large in ((1, 0.8, 0.4), (2, 0.2, 0.6), (3, 0.5, 0.5)):
        log.append(trained(round_, "small", small, 1))
        log.append(trained(round_, "large", large, 3))
        log.append(trained(round_, "small", 1 / round_, 1, method="fedprox"))
    return path


@pytest.mark.parametrize(("round_", "factor"), [(1, 1.0), (2, 1.0), (3, 1.0), (4, 0.1)])
def test_rounds_before_this_one_decide(events: Path, round_: int, factor: float) -> None:
    assert rate_factor(PLATEAU, events, "fedavg", round_) == pytest.approx(factor)


def test_another_methods_losses_do_not_count(events: Path) -> None:
    assert rate_factor(PLATEAU, events, "fedprox", 4) == 1.0


def test_an_answer_that_was_given_twice_counts_once(events: Path) -> None:
    EventLog(events).append(trained(3, "small", 0.5, 1))
    assert rate_factor(PLATEAU, events, "fedavg", 4) == pytest.approx(0.1)


def test_other_schedules_leave_the_rate(events: Path) -> None:
    assert rate_factor(Poly(power=0.9), events, "fedavg", 4) == 1.0


def test_losses_that_are_seen_only_as_their_sum_decide_as_well(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for round_ in (1, 2, 3):
        opened = SumOpened(
            method="fedavg",
            round=round_,
            sites=("a", "b", "c"),
            count=4,
            loss=0.5,
            update_norm=1.0,
            seconds=1.0,
        )
        log.append(opened)
    factors = [rate_factor(PLATEAU, tmp_path / "events.jsonl", "fedavg", n) for n in (3, 4)]
    assert factors == pytest.approx([1.0, 0.1])
