"""No single failure stops or corrupts a federation: every fault, on an injected clock.

Sites add a number of their own to every weight, so that what the surviving replies imply can be
written down: biases begin at 0 and move by the mean of those numbers, weighted by cases.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict

from common.errors import FederationError
from common.messages import TrainTask, Update, Validated, ValidateTask
from common.wire import body_of, to_content, weights_of
from server.event_log import read_events
from server.events import Event, ReplyIgnored, SiteExcluded, SiteFailed, SiteTrained
from server.experiment import Experiment
from server.flower_sites import FlowerSites
from server.rounds import train_method
from simulation.grid import InProcessGrid

MOVES = {"a": 1.0, "b": 3.0, "c": -1.0}
CASES = {"a": 1, "b": 3, "c": 4}
# all: (1 * 1 + 3 * 3 - 4 * 1) / 8 = .75 in every round; a and b: 10 / 4 = 2.5; b and c: 5 / 7
NODES = {site: number for number, site in enumerate(CASES, start=1)}
SITES = {number: site for site, number in NODES.items()}
DEADLINE_S = 100.0
NODE_UNAVAILABLE = 3  # Flower's number
DETECTED_S = 51.0  # after which Flower says so

Answer = tuple[float, Message]
"""After how many seconds, and what."""
Behaviour = Callable[[str, int, int, Message], list[Answer]]
"""(site, round, how often asked in it, good reply) -> what comes back."""


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Killed(BaseException):
    """The coordinator's process ends here."""


def hospital(message: Message, context: Context) -> Message:
    """Answer as a good site does: add its number to every weight."""
    site = str(context.node_config["site"])
    if message.metadata.message_type != "train":
        body_of(ValidateTask, message.content)
        return Message(to_content(Validated(dice=None)), reply_to=message)
    task = body_of(TrainTask, message.content)
    moved = {n: w + np.float32(MOVES[site]) for n, w in weights_of(message.content).items()}
    update = Update(round=task.round, n_cases=CASES[site], n_steps=1, loss=0.5, seconds=1.0)
    return Message(to_content(update, moved), reply_to=message)


class FaultyGrid(InProcessGrid):
    """Delivers what sites answer when it is due, and what a script makes of it."""

    def __init__(self, clock: Clock, behaviour: Behaviour, lives: int | None = None) -> None:
        super().__init__(hospital, {n: {"site": s} for s, n in NODES.items()})  # type: ignore[arg-type]
        self.clock, self.behaviour, self.lives = clock, behaviour, lives
        self.due: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, int]] = []
        self.n_calls = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.live()
        ids = list(super().push_messages(messages))
        for message_id in ids:
            message = self._waiting[message_id]
            site = SITES[message.metadata.dst_node_id]
            (good,) = super().pull_messages([message_id])
            if message.metadata.message_type == "train":
                round_ = body_of(TrainTask, message.content).round
                self.asked.append((site, round_))
                answers = self.behaviour(site, round_, self.asked.count((site, round_)), good)
            else:
                answers = [(10.0, good)]
            self.due[message_id] = [(self.clock.now + delay, reply) for delay, reply in answers]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.live()
        for message_id in message_ids:
            waiting = self.due.get(message_id, [])
            self.due[message_id] = [answer for answer in waiting if answer[0] > self.clock.now]
            yield from (reply for moment, reply in waiting if moment <= self.clock.now)

    def live(self) -> None:
        self.n_calls += 1
        if self.lives is not None and self.n_calls > self.lives:
            raise Killed


def well(site: str, round_: int, attempt: int, good: Message) -> list[Answer]:
    return [(10.0 * NODES[site], good)]


def died(good: Message) -> list[Answer]:
    error = Message(Error(NODE_UNAVAILABLE), metadata=good.metadata)
    return [(DETECTED_S, error)]


def only(
    where: Mapping[tuple[str, int], Callable[[int, Message], list[Answer]]],
) -> Behaviour:
    """Return a behaviour with faults at some (site, round)."""

    def behave(site: str, round_: int, attempt: int, good: Message) -> list[Answer]:
        fault = where.get((site, round_))
        return fault(attempt, good) if fault else well(site, round_, attempt, good)

    return behave


@pytest.fixture
def run(toy_experiment: Callable[..., Experiment], tmp_path: Path) -> Callable[..., Any]:
    """Return what trains with FedAvg over a grid; gives the bias, the events and the grid."""

    def go(
        behaviour: Behaviour, folder: Path = tmp_path, lives: int | None = None, **federation: Any
    ) -> tuple[float, list[Event], FaultyGrid]:
        clock = Clock()
        grid = FaultyGrid(clock, behaviour, lives)
        sites = FlowerSites(grid, clock, NODES)
        wanted = {"rounds": 3, "round_timeout_s": DEADLINE_S, "retries": 0, **federation}
        experiment = toy_experiment(folder, sites, CASES, **wanted)
        _, state = train_method(experiment, "fedavg")
        events = [event for _, event in read_events(experiment.folder.events)]
        return float(state["global"]["heads.0.bias"][0]), events, grid

    return go


def of(kind: type[Any], events: list[Event]) -> list[tuple[str, int]]:
    return [(e.site, e.round) for e in events if isinstance(e, kind)]


def test_without_faults_all_count_in_every_round(run):
    bias, events, _ = run(well)
    assert bias == 3 * 0.75
    assert of(SiteTrained, events) == [(site, n) for n in (1, 2, 3) for site in "abc"]
    assert of(SiteFailed, events) == of(ReplyIgnored, events) == []


def test_a_site_that_dies_before_its_reply_is_missed_in_that_round_only(run):
    bias, events, _ = run(only({("c", 2): lambda _, good: died(good)}))
    assert bias == 0.75 + 2.5 + 0.75
    assert of(SiteFailed, events) == [("c", 2)]


def test_a_site_that_dies_is_asked_again_within_the_round(run):
    fails_once = lambda attempt, good: died(good) if attempt == 1 else [(20.0, good)]  # noqa: E731
    bias, events, grid = run(only({("c", 2): fails_once}), retries=1)
    assert bias == 3 * 0.75
    assert grid.asked.count(("c", 2)) == 2
    assert of(SiteFailed, events) == []


def test_a_site_that_dies_again_and_again_costs_one_round_and_no_more_attempts_than_allowed(run):
    bias, events, grid = run(only({("c", 2): lambda _, good: died(good)}), retries=1)
    assert bias == 0.75 + 2.5 + 0.75
    assert grid.asked.count(("c", 2)) == 2  # the third would be after the deadline
    assert of(SiteFailed, events) == [("c", 2)]


def test_a_site_that_dies_after_its_reply_has_counted(run):
    after = {("c", n): (lambda _, good: died(good)) for n in (2, 3)}
    bias, events, _ = run(only(after))
    assert bias == 0.75 + 2.5 + 2.5
    assert of(SiteTrained, events)[:3] == [("a", 1), ("b", 1), ("c", 1)]


def test_when_all_sites_die_the_run_stops_and_goes_on_as_if_nothing_had_been(run):
    everyone = {(site, 2): (lambda _, good: died(good)) for site in "abc"}
    with pytest.raises(FederationError, match=r"round 2 .*at least 2 sites, found 0"):
        run(only(everyone))
    assert run(well)[0] == 3 * 0.75


def test_a_site_far_slower_than_the_deadline_never_counts_and_the_log_says_so(run):
    slow = {("c", n): (lambda _, good: [(10 * DEADLINE_S, good)]) for n in range(1, 13)}
    bias, events, _ = run(only(slow), rounds=12)
    assert bias == 12 * 2.5
    assert of(SiteFailed, events) == [("c", n) for n in range(1, 13)]
    ignored = [event for event in events if isinstance(event, ReplyIgnored)]
    assert next((e.site, e.round, e.reason) for e in ignored) == (
        "c",
        11,
        "it belongs to round 1",
    )


def test_a_late_update_counts_in_the_round_in_which_it_comes_if_asked_for(run):
    def behave(site: str, round_: int, attempt: int, good: Message) -> list[Answer]:
        if (site, round_) == ("c", 1):
            return [(150.0, good)]
        return [(60.0, good)]

    bias, events, grid = run(behave, late_rounds=1)
    # round 1 without c: 2.5; round 2: a 3.5, b 5.5, and c's -1 of round 1:
    # (3.5 + 3 * 5.5 - 4 * 1) / 8 = 2; round 3: + .75
    assert bias == 2.75
    assert ("c", 2) not in grid.asked
    late = [e for e in events if isinstance(e, SiteTrained) and e.late_rounds]
    assert [(e.site, e.round, e.late_rounds) for e in late] == [("c", 2, 1)]
    # measured from the weights that it began with, it is as long as the update of a, which adds 1
    (of_a,) = [e for e in events if isinstance(e, SiteTrained) and (e.site, e.round) == ("a", 1)]
    assert late[0].update_norm == pytest.approx(of_a.update_norm)


def test_an_update_that_is_later_than_allowed_is_dropped_and_its_site_asked_again(run):
    def behave(site: str, round_: int, attempt: int, good: Message) -> list[Answer]:
        if (site, round_) == ("c", 1):
            return [(205.0, good)]
        return [(50.0, good)]

    bias, events, grid = run(behave, late_rounds=1, rounds=4)
    assert bias == 2.5 + 2.5 + 0.75 + 0.75
    assert [n for site, n in grid.asked if site == "c"] == [1, 3, 4]
    (ignored,) = [event for event in events if isinstance(event, ReplyIgnored)]
    assert (ignored.site, ignored.round) == ("c", 4)


def test_a_duplicate_reply_counts_once(run):
    twice = {("b", n): (lambda _, good: [(5.0, good), (5.0, deepcopy(good))]) for n in (1, 2, 3)}
    bias, events, _ = run(only(twice))
    assert bias == 3 * 0.75
    assert of(ReplyIgnored, events) == [("b", 1), ("b", 2), ("b", 3)]


def test_a_reply_to_an_old_round_is_refused_and_says_which(run):
    kept: list[RecordDict] = []

    def old(_: int, good: Message) -> list[Answer]:
        kept.append(deepcopy(good.content))
        return [(5.0, Message(deepcopy(kept[0]), metadata=good.metadata))]

    bias, events, _ = run(only({("c", 1): old, ("c", 2): old}))
    assert bias == 0.75 + 2.5 + 0.75
    (failed,) = [event for event in events if isinstance(event, SiteFailed)]
    assert (failed.site, failed.round, failed.reason) == ("c", 2, "round: expected 2, found 1")


def test_a_site_that_fails_too_often_is_given_up_with_a_reason(run):
    dead = {("c", n): (lambda _, good: died(good)) for n in range(2, 9)}
    bias, events, grid = run(only(dead), rounds=6, exclude_after=2)
    assert bias == 0.75 + 5 * 2.5
    assert [n for site, n in grid.asked if site == "c"] == [1, 2, 3]
    (excluded,) = [event for event in events if isinstance(event, SiteExcluded)]
    assert (excluded.site, excluded.round) == ("c", 3)
    assert excluded.reason == "failed in 2 rounds in a row, at last: flower-3"


def test_sites_that_were_given_up_do_not_make_the_quorum_smaller(run):
    dead = {(site, n): (lambda _, good: died(good)) for site in "bc" for n in (2, 3, 4)}
    with pytest.raises(FederationError, match=r"round 2 .*at least 2 sites, found 1"):
        run(only(dead), rounds=4, exclude_after=1)
    with pytest.raises(FederationError, match=r"round 2 .*at least 2 sites, found 1"):
        run(only(dead), rounds=4, exclude_after=1)  # resumed: b and c are no longer asked


def test_a_site_that_recovers_in_time_is_not_given_up(run):
    faults = {("c", n): (lambda _, good: died(good)) for n in (1, 3)}
    bias, events, _ = run(only(faults), rounds=4, exclude_after=2)
    assert bias == 2.5 + 0.75 + 2.5 + 0.75
    assert of(SiteExcluded, events) == []


def test_enough_sites_with_too_few_of_the_cases_are_no_quorum(run):
    dead = {("c", n): (lambda _, good: died(good)) for n in (1, 2)}
    with pytest.raises(FederationError, match="at least 60% of the cases, found 50%"):
        run(only(dead), min_case_share=0.6, exclude_after=1)
    with pytest.raises(FederationError, match="at least 60% of the cases, found 50%"):
        run(only(dead), min_case_share=0.6, exclude_after=1)  # resumed: c is no longer asked


def test_an_update_out_of_proportion_to_the_rounds_before_is_refused(run):
    def enormous(_: int, good: Message) -> list[Answer]:
        content = good.content
        huge = {n: w + np.float32(100) for n, w in weights_of(content).items()}
        update = body_of(Update, content)
        return [(5.0, Message(to_content(update, huge), metadata=good.metadata))]

    bias, events, _ = run(only({("c", 2): enormous}), max_norm_ratio=10.0)
    assert bias == 0.75 + 2.5 + 0.75
    (failed,) = [event for event in events if isinstance(event, SiteFailed)]
    assert failed.reason.startswith("update: expected a norm up to ")


def test_sampled_sites_are_the_same_in_every_run_and_not_the_same_in_every_round(run, tmp_path):
    _, _, first = run(well, tmp_path / "one", rounds=8, sites_per_round=2)
    _, _, second = run(well, tmp_path / "two", rounds=8, sites_per_round=2)
    assert first.asked == second.asked
    rounds = [tuple(s for s, n in first.asked if n == wanted) for wanted in range(1, 9)]
    assert {len(asked) for asked in rounds} == {2}
    assert len(set(rounds)) > 1


FAULTS = only({("c", 2): lambda _, good: died(good), ("b", 3): lambda _, g: [(1000.0, g)]})


@pytest.mark.parametrize("seed", range(10))
def test_a_coordinator_killed_anywhere_resumes_to_the_same_weights(run, tmp_path, seed):
    undisturbed, _, whole = run(FAULTS, tmp_path / "whole", rounds=4, min_sites=1)
    lives = int(np.random.default_rng(seed).integers(whole.n_calls))
    with pytest.raises(Killed):
        run(FAULTS, tmp_path / "cut", lives=lives, rounds=4, min_sites=1)
    resumed, events, _ = run(FAULTS, tmp_path / "cut", rounds=4, min_sites=1)
    # 3 sites .75; a and b 2.5; a and c (1 - 4) / 5 = -.6; 3 sites .75
    assert undisturbed == resumed == pytest.approx(0.75 + 2.5 - 0.6 + 0.75)
    finished = {(e.site, e.round) for e in events if isinstance(e, SiteTrained)}
    everyone = {(site, n) for site in "abc" for n in (1, 2, 3, 4)}
    assert finished == everyone - {("c", 2), ("b", 3)}
