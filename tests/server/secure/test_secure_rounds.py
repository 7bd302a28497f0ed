"""Rounds of which only the sum is seen: every drop-out, crash and lie, with real sites' parts.

Sites add a number of their own to every weight, in the place of training; masking, agreeing and
unmasking are the sites' own code. Biases begin at 0, so that what the survivors imply can be
written down.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from scipy.stats import chisquare

from client.policy import Policy
from client.secure.keys import run_key
from client.secure.masked_update import VECTOR, masked_update, require_secure
from client.secure.unmasking import agree, unmask
from client.site import Agreement, SiteConfig, save_agreement
from common.codec import encode
from common.errors import FederationError, MessageError, PolicyError
from common.messages import (
    AgreeTask,
    KeysTask,
    PrepareTask,
    TrainTask,
    UnmaskTask,
    Update,
)
from common.planning.fingerprint import empty
from common.privacy.mechanism import Spent
from common.wire import body_of, to_content, weights_of
from server.event_log import read_events
from server.events import (
    Event,
    RoundFinished,
    SiteFailed,
    SiteMasked,
    SiteTrained,
    SumLost,
    SumOpened,
)
from server.experiment import Experiment
from server.flower_sites import FlowerSites
from server.rounds import train_method
from server.secure.masked_sum_file import kept_sum
from simulation.grid import InProcessGrid

FOUR = {"a": 1, "b": 3, "c": 4, "d": 2}  # cases; of four sites three must agree
MOVES = {"a": 1.0, "b": 3.0, "c": -1.0, "d": 2.0}
# all: (1 * 1 + 3 * 3 - 4 * 1 + 2 * 2) / 10 = 1; without d: 6 / 8; without a: 9 / 9
SEVEN = {f"s{n}": n for n in range(7)} | {"s0": 7}  # 28 cases; of seven sites five must agree
SECURE = {"min_sites": 3}
ERROR = 1e-7  # 7 * 2**-29 * 28 / 17 and the rounding of the weights are less
MESSAGES = {
    "keys": KeysTask,
    "train": TrainTask,
    "agree": AgreeTask,
    "unmask": UnmaskTask,
}


class Killed(BaseException):
    """The coordinator's process ends here."""


@dataclass
class Fates:
    """What goes wrong: who does not answer what in which round, and when the coordinator dies."""

    silent: set[tuple[str, str, int]] = field(default_factory=set)
    """(site, kind of message, round); keys are asked for before round 1."""
    killed_at: str | None = None
    """Kind of message that the coordinator does not come to send."""
    inconsistent: set[str] = field(default_factory=set)
    """Sites that train from other weights than the rest."""
    spent: dict[str, Spent] = field(default_factory=dict)
    """What sites say that training has cost their patients, though the run promises nothing."""
    change: Callable[[str, str, object], object] = lambda _site, _kind, body: body
    """(site, kind, question) -> the question that arrives."""
    sent: list[tuple[str, str, dict[str, Any], Any]] = field(default_factory=list)
    """(site, kind, answer, what lies beside it): the coordinator's recorded view."""


class Hospitals(InProcessGrid):
    """Sites with real masks and no images."""

    def __init__(self, sites: dict[str, SiteConfig], fates: Fates, cases: dict[str, int]) -> None:
        self.sites, self.fates, self.cases = sites, fates, cases
        self.names = dict(enumerate(sorted(sites), start=1))
        super().__init__(self.answer, {n: {"site": name} for n, name in self.names.items()})  # type: ignore[arg-type]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if any(kind_of(message) == self.fates.killed_at for message in messages):
            raise Killed
        return super().push_messages(messages)

    def answer(self, message: Message, context: Context) -> Message:
        site, kind = str(context.node_config["site"]), kind_of(message)
        body = body_of(MESSAGES[kind], message.content)
        if (site, kind, getattr(body, "round", 0)) in self.fates.silent:
            return Message(Error(4100, "disk"), reply_to=message)
        body = self.fates.change(site, kind, body)
        try:
            answer, beside = self.done(self.sites[site], body, message.content)
        except (PolicyError, MessageError) as error:
            code = "message" if isinstance(error, MessageError) else "policy:privacy"
            return Message(Error(4100, code), reply_to=message)
        self.fates.sent.append((site, kind, encode(answer), beside))
        return Message(to_content(answer, beside), reply_to=message)

    def done(self, site: SiteConfig, body: object, content: RecordDict) -> tuple[object, Any]:
        match body:
            case KeysTask():
                return run_key(site, body), None
            case AgreeTask():
                return agree(site, body), None
            case UnmaskTask():
                return unmask(site, body), None
            case TrainTask():
                return self.trained(site, body, weights_of(content))
        raise AssertionError(body)

    def trained(self, site: SiteConfig, task: TrainTask, sent: Any) -> tuple[object, Any]:
        agreement = agreement_of(site)
        if site.name in self.fates.inconsistent:
            sent = {name: tensor + np.float32(0.5) for name, tensor in sent.items()}
        require_secure(site, agreement, task)
        move = np.float32(MOVES.get(site.name, self.cases[site.name] / 2))
        dice = {"one": 0.5} if task.round > 1 and site.name == "b" else None
        n_cases = self.cases[site.name]
        update = Update(
            round=task.round, n_cases=n_cases, n_steps=1, loss=0.25, seconds=1.0, validation=dice
        )
        update = replace(update, spent=self.fates.spent.get(site.name))
        moved = {name: tensor + move for name, tensor in sent.items()}
        return masked_update(site, agreement, task, update, sent, moved)


AGREEMENTS: dict[str, Agreement] = {}


def agreement_of(site: SiteConfig) -> Agreement:
    return AGREEMENTS[site.state]


def kind_of(message: Message) -> str:
    return str(message.metadata.message_type).removeprefix("query.")


@pytest.fixture
def go(toy_experiment: Callable[..., Experiment], tmp_path: Path) -> Callable[..., Any]:
    """Return what trains with FedAvg, summing unseen; gives the bias and the events."""

    def train(
        fates: Fates, cases: dict[str, int] = FOUR, method: str = "fedavg", **federation: Any
    ) -> tuple[float, list[Event]]:
        wanted = {"rounds": 1, "min_sites": 3, "secure_aggregation": SECURE, "retries": 0}
        policy = Policy(metrics="none", validation_means=True, pictures=False, fingerprint="exact")
        sites = {
            name: SiteConfig(name=name, data="/", state=str(tmp_path / name), policy=policy)
            for name in cases
        }
        grid = Hospitals(sites, fates, cases)
        nodes = {name: number for number, name in grid.names.items()}
        federation = {**wanted, "methods": [method], **federation}
        run = toy_experiment(tmp_path, FlowerSites(grid, nodes=nodes), cases, **federation)
        for site in sites.values():
            terms = PrepareTask(
                run="run",
                task=run.task,
                config=run.config,
                fingerprint=empty(run.task),
                plan_hash=run.plan.hash,
            )
            AGREEMENTS[site.state] = Agreement(terms=terms, plan=run.plan, cases=("case",))
            save_agreement(site, AGREEMENTS[site.state])
        _, state = train_method(run, method)  # type: ignore[arg-type]
        bias = float(state["global"]["heads.0.bias"][0])
        return bias, [event for _, event in read_events(run.folder.events)]

    return train


def the(kind: type[Any], events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_the_mean_of_a_sum_is_that_of_the_updates_and_of_them_nothing_else_is_known(go) -> None:
    bias, events = go(Fates(), rounds=2)
    assert bias == pytest.approx(2 * 1.0, abs=2 * ERROR)
    assert [event.site for event in the(SiteMasked, events)] == list("abcd") * 2
    first, second = the(SumOpened, events)
    assert (first.sites, first.count, first.loss, first.dice) == (tuple("abcd"), 10, 0.25, None)
    assert (second.dice, the(SiteTrained, events)) == ({"one": 0.5}, [])
    assert [event.n_sites for event in the(RoundFinished, events)] == [4, 4]


def test_a_masked_update_with_a_cost_that_the_run_does_not_promise_is_refused(go) -> None:
    told = Spent(epsilon=2.0, delta=1e-3, budget_used=0.5)
    bias, events = go(Fates(spent={"d": told}))
    assert bias == pytest.approx(6 / 8, abs=ERROR)  # without d
    (failed,) = the(SiteFailed, events)
    assert (failed.site, failed.reason) == ("d", "spent: expected none without [privacy]")


@pytest.mark.parametrize(
    ("weighting", "expected"), [("cases", 1.0), ("steps", 1.25), ("uniform", 1.25)]
)
def test_every_weighting_works_from_the_sum(go, weighting: str, expected: float) -> None:
    assert go(Fates(), weighting=weighting)[0] == pytest.approx(expected, abs=ERROR)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fedavg", {"final_model": "average", "average_decay": 0.5}),
        ("fedprox", {"proximal_mu": 0.1}),
        ("fedavgm", {"server_optimizer": {"learning_rate": 1.0}}),
    ],
)
def test_methods_that_need_only_the_mean_get_it(go, method: str, settings: dict) -> None:
    assert go(Fates(), method=method, **settings)[0] == pytest.approx(1.0, abs=ERROR)


def test_a_part_of_the_sites_is_drawn_and_masks_for_itself(go) -> None:
    bias, events = go(Fates(), SEVEN, sites_per_round=4)
    (opened,) = the(SumOpened, events)
    assert len(opened.sites) == 4
    cases = [SEVEN[site] for site in opened.sites]
    assert bias == pytest.approx(sum(n * n for n in cases) / sum(cases) / 2, abs=ERROR)


# Drop-outs


@pytest.mark.parametrize(
    ("kind", "round_", "expected"),
    [("keys", 0, 6 / 8), ("train", 1, 6 / 8), ("agree", 1, 1.0), ("unmask", 1, 1.0)],
)
def test_one_site_drops_out(go, kind: str, round_: int, expected: float) -> None:
    bias, events = go(Fates(silent={("d", kind, round_)}))
    assert bias == pytest.approx(expected, abs=ERROR)
    assert the(SumLost, events) == []


@pytest.mark.parametrize(
    ("kind", "round_", "expected"),
    # halves of cases are moves: (1 + 4 + 9 + 16 + 49) / 17 / 2 without the two, else 140 / 28 / 2
    [("keys", 0, 79 / 34), ("train", 1, 79 / 34), ("agree", 1, 2.5), ("unmask", 1, 2.5)],
)
def test_two_of_seven_drop_out(go, kind: str, round_: int, expected: float) -> None:
    silent = {(site, kind, round_) for site in ("s5", "s6")}
    bias, events = go(Fates(silent=silent), SEVEN)
    assert bias == pytest.approx(expected, abs=ERROR)
    assert the(SumLost, events) == []


def test_others_drop_out_at_every_step_of_a_round(go) -> None:
    silent = {("s5", "train", 1), ("s1", "agree", 1), ("s2", "unmask", 1)}
    bias, _ = go(Fates(silent=silent), SEVEN)
    assert bias == pytest.approx((140 - 25) / (28 - 5) / 2, abs=ERROR)


@pytest.mark.parametrize("kind", ["keys", "train"])
def test_with_too_few_sites_nothing_is_opened_and_the_run_can_go_on(go, kind: str) -> None:
    silent = {(site, kind, 0 if kind == "keys" else 1) for site in "cd"}
    fates = Fates(silent=silent)
    with pytest.raises(FederationError, match=r"round 1.*at least 3"):
        go(fates)
    assert {kind for _, kind, *_ in fates.sent} <= {"keys", "train"}
    assert go(Fates())[0] == pytest.approx(1.0, abs=ERROR)


def test_fewer_survivors_than_must_agree_open_nothing(go) -> None:
    silent = {(f"s{n}", "train", 1) for n in range(3)}  # four of seven are left
    with pytest.raises(FederationError, match=r"at least 5 of 7 sites, found 4; nothing was op"):
        go(Fates(silent=silent), SEVEN)


@pytest.mark.parametrize("kind", ["agree", "unmask"])
def test_a_round_that_too_few_help_to_open_is_lost_and_the_next_one_counts(go, kind: str) -> None:
    silent = {(site, kind, 1) for site in "cd"}
    bias, events = go(Fates(silent=silent), rounds=2)
    assert bias == pytest.approx(1.0, abs=ERROR)  # of the second round alone
    (lost,) = the(SumLost, events)
    assert (lost.round, lost.reason[:13]) == (1, "3 sites must ")
    assert [event.n_sites for event in the(RoundFinished, events)] == [0, 4]


def test_a_lost_round_is_not_asked_for_again_by_a_resumed_run(go, tmp_path: Path) -> None:
    go(Fates(silent={(site, "unmask", 1) for site in "cd"}))
    bias, events = go(Fates(), rounds=2)
    assert bias == pytest.approx(1.0, abs=ERROR)
    assert [(event.round, event.sites) for event in the(SumOpened, events)] == [(2, tuple("abcd"))]


# Crashes


def test_a_run_that_ends_before_unmasking_goes_on_with_the_same_survivors(go, tmp_path) -> None:
    with pytest.raises(Killed):
        go(Fates(silent={("d", "train", 1)}, killed_at="unmask"))
    assert kept_sum(tmp_path / "run" / "checkpoints" / "fedavg", 1) is not None
    fates = Fates()
    bias, _ = go(fates)
    assert bias == pytest.approx(6 / 8, abs=ERROR)
    assert {kind for _, kind, *_ in fates.sent} == {"agree", "unmask"}  # nobody trained again
    assert list((tmp_path / "run" / "checkpoints" / "fedavg").glob("*masked*")) == []


def test_a_run_that_ends_after_unmasking_is_told_the_same_again(go, monkeypatch) -> None:
    def die(*_arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("server.rounds._saved", saved_but_for_round_1(die))
        with pytest.raises(Killed):
            go(Fates())
    bias, events = go(Fates())
    assert bias == pytest.approx(1.0, abs=ERROR)
    assert len(the(SumOpened, events)) == 2  # of the same round


def saved_but_for_round_1(die: Callable[..., None]) -> Callable[..., Any]:
    from server import rounds

    saved = rounds._saved
    return lambda run, method, n, state: die() if n == 1 else saved(run, method, n, state)


def test_a_run_that_ends_while_it_gathers_begins_the_round_again(go) -> None:
    with pytest.raises(Killed):
        go(Fates(killed_at="train"))
    with pytest.raises(FederationError):
        go(Fates(silent={(site, "train", 1) for site in "abc"}))  # d masked for nothing
    assert go(Fates())[0] == pytest.approx(1.0, abs=ERROR)


# Lies


def test_wrong_shares_lose_the_round_and_nothing_false_is_learned(go) -> None:
    def lie(site: str, kind: str, body: object) -> object:
        if isinstance(body, UnmaskTask) and site == "a":
            first = next(iter(body.shares))
            return replace(body, shares={**body.shares, first: "A" * 80})
        return body

    bias, events = go(Fates(change=lie))
    assert bias == pytest.approx(1.0, abs=ERROR)  # the other three are enough
    assert [(event.site, event.code) for event in the(SiteFailed, events)] == [
        ("a", "policy:privacy")
    ]


@pytest.mark.parametrize("differs", ["rate", "weights"])
def test_sites_that_were_asked_different_things_open_nothing(go, differs: str) -> None:
    def lie(site: str, kind: str, body: object) -> object:
        if isinstance(body, TrainTask) and site != "a" and differs == "rate":
            return replace(body, rate_factor=1e-9)  # all others stand still
        return body

    inconsistent = {"a"} if differs == "weights" else set()
    bias, events = go(Fates(change=lie, inconsistent=inconsistent))
    assert bias == 0.0
    assert len(the(SumLost, events)) == 1


def test_survivors_that_differ_from_site_to_site_open_nothing(go) -> None:
    names = tuple(sorted(SEVEN))

    def lie(site: str, kind: str, body: object) -> object:
        if not isinstance(body, AgreeTask | UnmaskTask):
            return body
        start = 0 if site in names[:4] else 2
        return replace(body, survivors=tuple(dict.fromkeys((site, *names[start : start + 5]))))

    bias, events = go(Fates(change=lie), SEVEN)
    assert bias == 0.0
    assert len(the(SumLost, events)) == 1
    assert len(the(SumOpened, events)) == 0


# The coordinator's recorded view


def test_of_one_site_the_coordinator_sees_random_bytes_and_never_the_same_twice(go, tmp_path):
    views = []
    for folder in ("one", "two"):
        fates = Fates()
        go(fates)
        views.append(next(v[VECTOR] for _, kind, _, v in fates.sent if kind == "train"))
        (tmp_path / "run").rename(tmp_path / folder)
        for site in FOUR:
            (tmp_path / site).rename(tmp_path / f"{site}-{folder}")
    one, two = views
    assert one.shape == two.shape
    assert not (one == two).any()  # of equal updates
    for view in views:
        counts = np.bincount(view.view(np.uint8), minlength=256)
        assert chisquare(counts).pvalue > 1e-6


def test_no_answer_holds_an_update_a_count_a_loss_or_a_seed(go) -> None:
    fates = Fates(silent={("d", "train", 1)})
    go(fates)
    plain = {site: np.float32(move).tobytes() * 4 for site, move in MOVES.items()}
    for site, kind, body, beside in fates.sent:
        if kind == "train":
            assert (body["n_cases"], body["n_steps"]) == (0, 0)
            assert {*body} == {"round", "n_cases", "n_steps", "seconds", "masked"}
            assert [*beside] == [VECTOR]
            assert plain[site] not in beside[VECTOR].tobytes()
        if kind == "unmask":  # never both kinds for one site
            assert {*body["own"]} == {"a", "b", "c"}
            assert {*body["pairs"]} == {"a", "b", "c"}
            assert all({*pairs} == {"d"} for pairs in body["pairs"].values())


def test_what_sites_log_names_no_number(go, tmp_path: Path) -> None:
    go(Fates())
    log = (tmp_path / "a" / "site.log").read_text()
    assert re.search(r"run run: fedavg, round 1: update masked for the sum of a, b, c, d", log)
    assert "shares told for the sum of a, b, c, d" in log
