"""The table's line, progress and site rows, at every stage of a run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.dashboard.alarms import Limits, alarms_of
from server.dashboard.facts import facts_of
from server.dashboard.run_data import RunData, add_event, follow
from server.dashboard.run_settings import RunSettings, read_config, settings_of
from server.dashboard.site_rows import site_rows
from server.dashboard.standing import summary_of
from server.dashboard.views import BestDice, RunSummary, SiteRow
from server.events import (
    ApprovalAwaited,
    HeldOutScored,
    RunStarted,
    SiteExcluded,
    SiteJoined,
    SiteLeft,
)
from simulation.invented_events import InventedRun
from simulation.invented_runs import write_invented

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits()


def opened(folder: Path, run: InventedRun) -> tuple[RunData, RunSettings]:
    written = write_invented(folder, run, NOON)
    return follow(written.events, RunData()), settings_of(read_config(written.config)[1])


def summary(folder: Path, run: InventedRun, later: timedelta = timedelta()) -> RunSummary:
    facts = facts_of(*opened(folder, run))
    now = NOON + later
    return summary_of(run.name, facts, alarms_of(run.name, facts, now, LIMITS), now, LIMITS, 1)


def rows(data: RunData, settings: RunSettings, now: datetime = NOON) -> dict[str, SiteRow]:
    found = site_rows(data.cells, facts_of(data, settings), now, LIMITS)
    return {row.site: row for row in found}


def test_a_finished_run(tmp_path: Path) -> None:
    found = summary(tmp_path, InventedRun("r"))
    assert (found.state, found.reason) == ("finished", "")
    assert (found.task, found.methods) == ("brats-2021", ("fedavg", "fedprox"))
    assert (found.method, found.round, found.n_rounds) == ("fedprox", 10, 10)
    assert (found.n_sites, found.n_held_out) == (4, 1)
    assert found.best is not None
    assert (found.best.method, found.best.round) == ("fedavg", 10)
    assert found.best.dice == pytest.approx(0.792, abs=0.001)
    assert found.last_event == NOON
    assert found.seconds == 6440  # 120 s, 20 rounds of 300 s, 20 s of validation, 300 s of tests
    assert found.progress.phase == "finished"
    assert (found.progress.n_rounds_done, found.progress.n_rounds) == (20, 20)
    assert (found.progress.fraction, found.progress.left_s) == (1.0, 0.0)
    assert (found.epsilon, found.budget_used, found.n_alarms, found.worst) == (None,) * 2 + (
        0,
        None,
    )
    assert found.upload_bytes == pytest.approx(20 * 4 * 124_800_000, rel=1e-4)


def test_a_run_in_a_round(tmp_path: Path) -> None:
    found = summary(tmp_path, InventedRun("r", ending="running"))
    assert (found.state, found.reason) == ("running", "waits for site-03, site-04")
    progress = found.progress
    assert (progress.phase, progress.n_rounds_done, progress.n_rounds) == ("rounds", 17, 20)
    assert progress.text == "fedprox round 8 of 10: waits for site-03, site-04"
    assert progress.round_s == 300
    assert progress.left_s == pytest.approx(3 * 300 - 180, abs=60)  # half of the sites answered


def test_the_time_left_falls_while_a_round_lasts_and_not_below_the_next_rounds(
    tmp_path: Path,
) -> None:
    run = InventedRun("r", ending="running")
    left = [
        summary(tmp_path, run, timedelta(minutes=minutes)).progress.left_s for minutes in (0, 1, 60)
    ]
    assert left[0] is not None
    assert left[1] == pytest.approx(left[0] - 60)
    assert left[2] == 600


def test_a_silent_run_is_stalled_and_says_since_when(tmp_path: Path) -> None:
    found = summary(tmp_path, InventedRun("r", ending="running"), timedelta(hours=2))
    assert (found.state, found.reason) == (
        "stalled",
        "nothing was logged since 2026-03-01 12:00 UTC",
    )
    assert found.worst == "critical"


def test_a_round_that_cannot_count_is_a_failed_run(tmp_path: Path) -> None:
    found = summary(tmp_path, InventedRun("r", ending="failed"))
    assert found.state == "failed"
    assert found.reason == (
        "2 of 4 sites failed (site-03, site-04); good updates of at least 3 are needed."
    )


def test_runs_that_wait_say_for_whom(tmp_path: Path) -> None:
    waiting = summary(tmp_path, InventedRun("r", ending="waiting"))
    assert (waiting.state, waiting.reason) == ("waiting", "waits for 2 more sites to connect")
    assert waiting.progress.left_s is None
    approval = summary(tmp_path, InventedRun("r2", ending="approval"))
    assert (approval.state, approval.reason) == (
        "waiting",
        "waits for a person's approval at site-01",
    )


def test_a_private_run_says_the_largest_epsilon_and_share(tmp_path: Path) -> None:
    found = summary(tmp_path, InventedRun("r", private=True))
    assert (found.epsilon, found.budget_used) == (pytest.approx(8.01), pytest.approx(0.6))


def test_a_masked_run_has_a_best_round_too(tmp_path: Path) -> None:
    found = summary(tmp_path, InventedRun("r", masked=True))
    assert found.best == BestDice(pytest.approx(0.786, abs=0.001), "fedavg", 9)


def test_an_empty_log_waits_and_an_unreadable_one_says_so(tmp_path: Path) -> None:
    empty = facts_of(RunData(), RunSettings())
    assert (
        summary_of("r", empty, (), NOON, LIMITS, 1).reason == "it has not started: its log is empty"
    )
    (tmp_path / "e").write_bytes(b"damage\nmore\n")
    damaged = facts_of(follow(tmp_path / "e", RunData()), RunSettings())
    found = summary_of("r", damaged, (), NOON, LIMITS, 1)
    assert (found.state, found.reason) == (
        "unreadable",
        "none of the 2 lines of its log can be read",
    )


def test_without_a_configuration_the_rest_is_shown(tmp_path: Path) -> None:
    data, _ = opened(tmp_path, InventedRun("r", ending="running"))
    facts = facts_of(data, RunSettings())
    found = summary_of("r", facts, (), NOON, LIMITS, 1)
    assert (found.state, found.n_rounds, found.progress.n_rounds) == ("running", None, None)
    assert (found.progress.left_s, found.progress.fraction) == (None, 0.0)
    assert found.progress.text == "fedprox round 8: waits for site-03, site-04"


def test_a_method_that_ended_early_counts_whole(tmp_path: Path) -> None:
    data, settings = opened(tmp_path, InventedRun("r", ending="running"))
    data.course.ended["fedavg"] = 4
    facts = facts_of(data, settings)
    assert summary_of("r", facts, (), NOON, LIMITS, 1).progress.n_rounds_done == 17


def test_every_site_has_its_state(tmp_path: Path) -> None:
    run = InventedRun("r", n_sites=8, ending="running", failing="site-08", n_rounds_left=1)
    data, settings = opened(tmp_path, run)
    for event in (
        SiteLeft(site="site-01"),
        SiteExcluded(method="fedprox", round=9, site="site-02", reason="failed often"),
        SiteJoined(site="late", role="training"),
        ApprovalAwaited(site="late"),
        HeldOutScored(method="fedavg", site="other", n_cases=3, note=""),
    ):
        add_event(data, NOON, event)
    data.course.is_testing = False  # the test came out of turn
    found = rows(data, settings, NOON + timedelta(minutes=30))
    assert {site: row.state for site, row in found.items()} == {
        "late": "awaits approval",
        "site-01": "left",
        "site-02": "excluded",
        "site-03": "answered",
        "site-04": "answered",
        "site-05": "silent",
        "site-06": "silent",
        "site-07": "silent",
        "site-08": "failing",
        "held-out-1": "held out",
        "other": "tested",
    }
    assert list(found)[-2:] == ["held-out-1", "other"]
    assert found["site-02"].reason == "failed often"
    assert rows(data, settings)["site-05"].state == "working"
    assert found["site-08"].n_failures_in_a_row == 3


def test_a_row_adds_up_all_methods(tmp_path: Path) -> None:
    row = rows(*opened(tmp_path, InventedRun("r", private=True)))["site-01"]
    assert (row.n_rounds, row.n_cases, row.last_method, row.last_round) == (20, 20, "fedprox", 10)
    assert row.median_s == pytest.approx(137, abs=3)
    assert row.upload_bytes == pytest.approx(20 * 124_800_000, rel=1e-4)
    assert row.upload_bytes_per_round == pytest.approx(124_800_000, rel=1e-4)
    assert (row.epsilon, row.delta) == (pytest.approx(8.01), 1e-5)
    assert (row.budget_used, row.budget_left) == (pytest.approx(0.6), pytest.approx(0.4))
    assert row.last_loss is None
    assert row.last_seen is not None


def test_before_the_plan_sites_have_joined(tmp_path: Path) -> None:
    found = rows(*opened(tmp_path, InventedRun("r", ending="approval")))
    assert [row.state for row in found.values()] == [
        "awaits approval", "joined", "joined", "joined", "held out",
    ]  # fmt: skip


def test_a_resumed_run_asks_for_approval_anew(tmp_path: Path) -> None:
    data, settings = opened(tmp_path, InventedRun("r", ending="approval"))
    started = data.course.started
    assert isinstance(started, RunStarted)
    add_event(data, NOON, started)
    assert rows(data, settings)["site-01"].state == "joined"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no toml [",
        "federation = 3",
        '[federation]\nrounds = "many"\nmethods = 5\nheld_out = {}',
    ],
)
def test_settings_of_any_file_are_none_at_worst(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert settings_of(read_config(path)[1]) == RunSettings()
    assert bool(read_config(path)[2]) == (text == "no toml [")
