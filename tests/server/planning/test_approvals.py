"""People at hospitals take their time: asked again every minute, on an injected clock."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message

from common.config import RunConfig
from common.errors import FederationError
from common.messages import Prepared, PrepareTask
from common.planning.fingerprint import empty
from common.task import load_task
from common.wire import body_of, to_content
from server.event_lines import line_of
from server.event_log import EventLog, read_events
from server.events import ApprovalAwaited, PlanMade
from server.flower_sites import FlowerSites
from server.planning.agreeing import agree
from server.planning.approvals import answers_of_people
from server.planning.cohort import Cohort
from server.run_folder import RunFolder
from server.sites import Failure, Reply
from simulation.grid import InProcessGrid

NODES = {"a": 1, "b": 2}
NEVER = float("inf")


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Hospitals:
    """Sites of which some wait for a person, who comes after so many seconds."""

    def __init__(self, clock: Clock, comes_after_s: Mapping[str, float]) -> None:
        self.clock, self.comes_after_s = clock, comes_after_s
        self.asked: list[tuple[str, float]] = []

    def __call__(self, message: Message, context: Context) -> Message:
        site = str(context.node_config["site"])
        task = body_of(PrepareTask, message.content)
        self.asked.append((site, self.clock.now))
        if self.clock.now < self.comes_after_s.get(site, 0.0):
            return Message(Error(4100, "policy:approval"), reply_to=message)
        done = Prepared(plan_hash=task.plan_hash, n_training_cases=4, n_validation_cases=0)
        return Message(to_content(done), reply_to=message)


@pytest.fixture
def ask(
    toy_config: Callable[..., RunConfig], tmp_path: Path
) -> Callable[[Mapping[str, float]], tuple[list[object], Hospitals, list[object]]]:
    """Return what asks two sites for ten minutes: answers, who was asked when, events."""

    def go(
        comes_after_s: Mapping[str, float],
    ) -> tuple[list[object], Hospitals, list[object]]:
        clock = Clock()
        hospitals = Hospitals(clock, comes_after_s)
        grid = InProcessGrid(hospitals, {n: {"site": s} for s, n in NODES.items()})  # type: ignore[arg-type]
        task = load_task("brats-2021")
        terms = PrepareTask(
            run="r", task=task, config=toy_config(), fingerprint=empty(task), plan_hash="0"
        )
        log = EventLog(tmp_path / "events.jsonl")
        sites = FlowerSites(grid, clock, NODES)
        answers = list(answers_of_people(sites, terms, ["a", "b"], log, 600.0, clock))
        path = tmp_path / "events.jsonl"
        events = [event for _, event in read_events(path)] if path.exists() else []
        return answers, hospitals, events

    return go


def test_nobody_is_asked_twice_where_nobody_has_to_approve(ask):
    answers, hospitals, events = ask({})
    assert [type(answer) for answer in answers] == [Reply, Reply]
    assert [site for site, _ in hospitals.asked] == ["a", "b"]
    assert events == []


def test_only_the_site_that_waits_is_asked_again_every_minute_until_it_agrees(ask):
    answers, hospitals, events = ask({"b": 130.0})
    assert [(answer.site, type(answer)) for answer in answers] == [("a", Reply), ("b", Reply)]
    assert hospitals.asked == [("a", 0.0), ("b", 0.0), ("b", 60.0), ("b", 120.0), ("b", 180.0)]
    assert events == [ApprovalAwaited(site="b")]
    assert line_of(events[0], 1) == "b waits for a person there to approve the run"


def test_a_site_where_nobody_comes_is_a_failure_when_the_time_is_over(ask):
    answers, hospitals, _ = ask({"b": NEVER})
    failure = answers[-1]
    assert isinstance(failure, Failure)
    assert (failure.site, failure.code) == ("b", "policy:approval")
    assert failure.reason == "nobody at b approved the run within 600 s"
    assert hospitals.asked[-1] == ("b", 600.0)


@pytest.mark.parametrize(("comes_after_s", "agrees"), [(130.0, True), (NEVER, False)])
def test_a_run_waits_for_a_person_before_its_plan_is_agreed(
    toy_experiment, tmp_path: Path, comes_after_s: float, agrees: bool
):
    clock = Clock()
    hospitals = Hospitals(clock, {"b": comes_after_s})
    grid = InProcessGrid(hospitals, {n: {"site": s} for s, n in NODES.items()})  # type: ignore[arg-type]
    sites = FlowerSites(grid, clock, NODES)
    run = toy_experiment(tmp_path, sites, {"a": 4, "b": 4}, join_timeout_s=600.0)
    folder, cohort = RunFolder(tmp_path / "run"), run.cohort
    assert isinstance(cohort, Cohort)

    def go() -> None:
        agree(sites, cohort, run.config, run.task, folder, run.log, clock)

    if agrees:
        go()
    else:
        with pytest.raises(FederationError, match="nobody at b approved the run within 600 s"):
            go()
    events = [event for _, event in read_events(folder.events)]
    assert [event.site for event in events if isinstance(event, ApprovalAwaited)] == ["b"]
    assert any(isinstance(event, PlanMade) for event in events) == agrees
