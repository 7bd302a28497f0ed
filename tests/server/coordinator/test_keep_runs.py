"""Attempts at runs on a real SuperLink without an executor: the tests say how each one ends."""

from pathlib import Path

import pytest

from common.codec import write_toml
from server.coordinator.control import control_of
from server.coordinator.keep_runs import RunKeeper
from server.coordinator.wanted_runs import WantedRun, change, read_wanted, want
from server.event_log import EventLog
from server.events import PlanMade, RunFinished

ADDED = "2026-01-02T03:04:05+00:00"


class Watched:
    """A keeper whose clock the test moves."""

    def __init__(self, path: Path) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.path = path
        self.keeper = RunKeeper(path, self.said.append, lambda: self.now)

    def tend(self, control) -> None:
        self.now += 100.0
        self.keeper.tend(control)


@pytest.fixture
def control(served):
    with control_of(served.kit.folder) as opened:
        yield opened


@pytest.fixture
def watched(tmp_path) -> Watched:
    return Watched(tmp_path / "runs.json")


@pytest.fixture
def wanted(watched, tmp_path, toy_config) -> WantedRun:
    run = WantedRun(folder=str(tmp_path / "run"), added=ADDED)
    write_toml(run.run.config, toy_config())
    want(watched.path, run)
    return run


def attempts(control, run: WantedRun) -> list:
    return [one for one in control.runs() if one.folder == run.folder]


def active(control, run: WantedRun) -> list[int]:
    return [one.id for one in attempts(control, run) if not one.is_over]


def test_a_wanted_run_has_one_attempt_at_a_time(control, watched, wanted):
    watched.tend(control)
    watched.tend(control)
    assert len(active(control, wanted)) == 1
    assert watched.said == [f"run run: started: {wanted.folder}"]


def test_what_a_dead_executor_ran_is_stopped_and_begun_again(control, watched, wanted):
    watched.tend(control)
    before = active(control, wanted)
    watched.keeper.forget_executor()
    watched.tend(control)
    assert active(control, wanted) == []
    watched.tend(control)
    after = active(control, wanted)
    assert len(after) == 1
    assert after != before


def test_five_attempts_without_progress_are_enough(control, watched, wanted):
    for _ in range(5):
        watched.tend(control)
        (number,) = active(control, wanted)
        control.stop(number)
    watched.tend(control)
    watched.tend(control)
    assert len(attempts(control, wanted)) == 5
    (run,) = read_wanted(watched.path)
    assert run.given_up.startswith("5 attempts without progress; the last one: stopped")
    assert watched.said[-1] == f"run run: given up: {run.given_up}"


def test_progress_gives_new_attempts(control, watched, wanted):
    for number in range(7):
        watched.tend(control)
        EventLog(wanted.run.events).append(PlanMade(plan_hash=str(number), n_cases=1, limits=()))
        control.stop(active(control, wanted)[0])
    watched.tend(control)
    assert len(attempts(control, wanted)) == 8
    assert read_wanted(watched.path)[0].given_up is None


def test_a_run_that_has_finished_is_left_alone(control, watched, wanted):
    EventLog(wanted.run.events).append(RunFinished(seconds=1.0, peak_memory_bytes=1))
    watched.tend(control)
    watched.tend(control)
    assert attempts(control, wanted) == []
    assert watched.said == [f"run run: finished: {wanted.folder}"]


def test_a_run_that_a_person_stopped_ends_and_goes_on_when_it_is_wanted_again(
    control, watched, wanted
):
    watched.tend(control)
    change(watched.path, wanted.folder, stopped=True)
    watched.tend(control)
    assert active(control, wanted) == []
    want(watched.path, wanted)
    watched.tend(control)
    assert len(active(control, wanted)) == 1


def test_events_that_cannot_be_read_end_the_attempts_with_the_place(control, watched, wanted):
    wanted.run.events.write_text('{"time": "2026-01-01T00:00:00+00:00", "event": "Unknown"}\n')
    watched.tend(control)
    assert attempts(control, wanted) == []
    assert str(wanted.run.events) in read_wanted(watched.path)[0].given_up
