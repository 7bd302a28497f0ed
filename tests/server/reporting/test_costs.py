"""Costs count everything that was done, and not the time between two starts."""

import json
from pathlib import Path

from server.reporting.costs import phases, round_costs, site_costs
from server.reporting.faults import attempts_of
from server.reporting.report import write_report
from server.reporting.report_data import ReportData, collect

START = {
    "event": "RunStarted",
    "run": "trial",
    "task": "brats-2021",
    "methods": ["fedavg"],
    "seed": 1,
    "resumed": False,
    "versions": {},
    "device": "cpu",
}


def _trained(round_: int, site: str, seconds: float) -> dict[str, object]:
    return {
        "event": "SiteTrained",
        "method": "fedavg",
        "round": round_,
        "site": site,
        "n_cases": 4,
        "n_steps": 10,
        "loss": 0.5,
        "update_norm": 1.0,
        "seconds": seconds,
        "upload_bytes": 1000,
        "download_bytes": 500,
    }


FINISHED = {"event": "RoundFinished", "method": "fedavg", "round": 1, "n_sites": 2, "seconds": 40.0}
FAILED = {
    "event": "SiteFailed",
    "method": "fedavg",
    "round": 1,
    "site": "north",
    "code": "timeout",
    "reason": "no answer",
    "download_bytes": 700,
}
LOG = (  # minute, second and what happened: north's first round is lost in a crash at 1:30
    ("00:00", START),
    ("00:10", {"event": "SiteJoined", "site": "north", "role": "training", "n_cases": 4}),
    ("00:25", {"event": "PlanMade", "plan_hash": "ab", "n_cases": 4, "limits": []}),
    ("00:26", {"event": "Note", "text": "a word"}),
    ("00:55", _trained(1, "north", 20.0)),
    ("01:30", FAILED),
    ("30:00", {**START, "resumed": True}),
    ("30:30", _trained(1, "north", 25.0)),
    ("30:35", _trained(1, "south", 30.0)),
    ("30:40", FINISHED),
    ("30:41", {"event": "SumLost", "method": "fedavg", "round": 2, "reason": "too few helped"}),
    ("30:42", {"event": "SiteLeft", "site": "south"}),
)


def _run(folder: Path) -> ReportData:
    lines = [{"time": f"2026-01-02T03:{at}+00:00", **event} for at, event in LOG]
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return collect(folder)


def test_time_belongs_to_the_phase_that_it_ended_in_and_a_pause_to_none(tmp_path: Path) -> None:
    found = {phase.name: phase.seconds for phase in phases(_run(tmp_path).log.timed)}
    assert found == {
        "Joining and fingerprints": 10.0,
        "Planning, and preparation of the cases": 15.0,
        "Rounds of FedAvg": 65.0 + 41.0,
    }


def test_what_a_crash_made_a_site_do_again_costs_again(tmp_path: Path) -> None:
    north, south = site_costs(_run(tmp_path))
    assert (north.site, north.n_updates, north.seconds) == ("north", 2, 45.0)
    assert (north.upload_bytes, north.download_bytes) == (2000, 1700)
    assert (south.site, south.n_updates, south.upload_bytes) == ("south", 1, 1000)


def test_overhead_is_what_the_slowest_site_s_training_leaves_of_a_round(tmp_path: Path) -> None:
    (cost,) = round_costs(_run(tmp_path))
    assert (cost.n_rounds, cost.seconds, cost.training_seconds) == (1, 40.0, 30.0)
    assert cost.overhead == 0.25


def test_every_start_of_a_run_is_told_with_its_end(tmp_path: Path) -> None:
    first, second = attempts_of(_run(tmp_path).log.timed)
    assert (first.resumed, first.ended_at.strftime("%M:%S"), first.finished) == (
        False,
        "01:30",
        False,
    )
    assert (second.resumed, second.ended_at.strftime("%M:%S")) == (True, "30:42")


def test_the_report_of_a_resumed_run_tells_starts_lost_sums_and_who_left(tmp_path: Path) -> None:
    _run(tmp_path)
    html = write_report(tmp_path).read_text()
    markdown = (tmp_path / "report.md").read_text()
    assert "| 2026-01-02 03:30:00 | resumed | 2026-01-02 03:30:42 | not finished |" in markdown
    assert "| all sites | FedAvg | 2 | sum lost | too few helped |" in markdown
    assert "| south | – | – | left | left the run; what it gave stays |" in markdown  # noqa: RUF001
    for text in (html, markdown):
        assert "Energy is not given" in text
        assert "1 min 15 s" in text
