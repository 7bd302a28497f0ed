"""Runs that never ran: their files are those of a run."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.codec import encode, read_json, read_toml
from common.config import RunConfig
from common.planning.plan import Plan
from server.event_log import read_events
from server.events import RunFinished, SiteTrained, SumOpened
from server.reporting.report_data import collect
from simulation.invented_events import InventedRun, events_of
from simulation.invented_runs import log_line, write_invented

UNTIL = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNS = (
    InventedRun("finished"),
    InventedRun("running", ending="running"),
    InventedRun("failed", ending="failed"),
    InventedRun("waiting", ending="waiting"),
    InventedRun("approval", ending="approval"),
    InventedRun("masked", masked=True),
    InventedRun("private", private=True, diverging=True, failing="site-02"),
)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_strict_readers_accept_every_file(tmp_path: Path, run: InventedRun) -> None:
    folder = write_invented(tmp_path, run, UNTIL)
    events = list(read_events(folder.events))
    assert events[-1][0] == UNTIL
    assert [event for _, event in events] == [event for _, event in events_of(run)]
    times = [time for time, _ in events]
    assert times == sorted(times)
    assert read_toml(RunConfig, folder.config).federation.rounds == 10
    if folder.plan.exists():
        assert read_json(Plan, folder.plan).channels == ("t1", "t1ce", "t2", "flair")
    assert collect(folder.path).started.run == run.name


def test_a_whole_run_has_scores_and_a_ranking(tmp_path: Path) -> None:
    found = collect(write_invented(tmp_path, RUNS[0], UNTIL).path)
    assert len(found.scores) == 2 * 24 * 3
    assert found.ranking is not None
    assert found.ranking.methods == ("fedavg", "fedprox")
    assert isinstance(found.finished, RunFinished)


def test_a_masked_run_shows_no_single_update() -> None:
    kinds = {type(event) for _, event in events_of(RUNS[5])}
    assert SiteTrained not in kinds
    assert SumOpened in kinds


def test_a_line_is_what_the_log_would_write() -> None:
    _, event = next(timed for timed in events_of(RUNS[6]) if isinstance(timed[1], SiteTrained))
    assert event.spent is not None
    assert b'"spent": {"epsilon": 0.407, "delta": 1e-05, "budget_used": 0.029775}' in log_line(
        UNTIL, event
    )
    assert encode(event)["spent"]["epsilon"] == 0.407
