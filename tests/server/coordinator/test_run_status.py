import json
from pathlib import Path

import pytest

from common.codec import write_toml
from server.coordinator.run_status import run_status
from server.coordinator.status_words import overhead_line, run_lines
from server.coordinator.wanted_runs import WantedRun
from server.event_log import EventLog
from server.events import (
    ApprovalAwaited,
    PlanMade,
    RoundFinished,
    RunFinished,
    SiteFailed,
    SiteJoined,
    SiteTrained,
)


def trained(site: str, round_: int, seconds: float) -> SiteTrained:
    return SiteTrained(
        method="fedavg",
        round=round_,
        site=site,
        n_cases=3,
        n_steps=2,
        loss=0.5,
        update_norm=1.0,
        seconds=seconds,
        upload_bytes=2 * 2**20,
        download_bytes=3 * 2**20,
    )


@pytest.fixture
def wanted(tmp_path: Path, toy_config) -> WantedRun:
    run = WantedRun(folder=str(tmp_path / "run"), added="2026-01-02T03:04:05+00:00")
    write_toml(run.run.config, toy_config(rounds=3, held_out=["gamma"]))
    return run


def log(run: WantedRun, *events) -> None:
    for event in events:
        EventLog(run.run.events).append(event)


JOINED = [
    SiteJoined(site="alpha", role="training", n_cases=3),
    SiteJoined(site="beta", role="training", n_cases=4),
    SiteJoined(site="gamma", role="held-out", n_cases=5),
    PlanMade(plan_hash="0", n_cases=7, limits=()),
]


def test_a_run_that_nobody_at_a_site_approved_yet_says_where(wanted):
    log(wanted, *JOINED[:3], ApprovalAwaited(site="beta"))
    assert run_status(wanted).waits_for == (
        "a person's approval at beta (consilium site proposals there)"
    )


def test_a_run_that_has_not_begun_waits_for_sites(wanted):
    found = run_status(wanted)
    assert (found.state, found.round, found.n_rounds, found.overhead) == ("wanted", 0, 3, None)
    assert found.waits_for == "sites to connect: 3 are needed, of these held out: 1"


def test_a_run_that_waits_says_for_which_training_sites(wanted):
    log(wanted, *JOINED, trained("alpha", 1, 30.0), trained("beta", 1, 50.0))
    log(wanted, RoundFinished(method="fedavg", round=1, n_sites=2, seconds=80.0))
    assert run_status(wanted).waits_for == "alpha, beta"
    log(wanted, trained("alpha", 2, 31.0))
    assert run_status(wanted).waits_for == "beta"
    log(wanted, SiteFailed(method="fedavg", round=2, site="beta", code="disk", reason="full"))
    assert run_status(wanted).waits_for == ""


def test_overhead_is_what_a_round_takes_beyond_its_slowest_site(wanted):
    log(wanted, *JOINED, trained("alpha", 1, 30.0), trained("beta", 1, 50.0))
    log(wanted, RoundFinished(method="fedavg", round=1, n_sites=2, seconds=80.0))
    log(wanted, trained("alpha", 2, 100.0), trained("beta", 2, 90.0))
    log(wanted, RoundFinished(method="fedavg", round=2, n_sites=2, seconds=120.0))
    found = run_status(wanted)
    assert found.overhead.share == pytest.approx(0.25)  # (80 + 120 - 50 - 100) / 200
    assert found.last_overhead.share == pytest.approx(1 / 6)
    words = overhead_line(found.last_overhead, "the last round")
    assert words.startswith("of the 120 s of the last round, 20 s (17%) were overhead")
    assert "  alpha: round 2, trained 100 s, 2.0 MiB up, 3.0 MiB down" in list(run_lines(found))


def test_a_run_that_has_finished_waits_for_nobody(wanted):
    log(wanted, *JOINED, RunFinished(seconds=1.0, peak_memory_bytes=1))
    assert (run_status(wanted).state, run_status(wanted).waits_for) == ("finished", "")


def test_a_line_that_is_being_written_does_not_disturb(wanted):
    log(wanted, *JOINED)
    with wanted.run.events.open("a") as file:
        file.write(json.dumps({"time": "2026"})[:-4])
    assert run_status(wanted).waits_for == "alpha, beta"
