"""One refusal per rule of a site's policy: by its code, without effect; allowed if allowed."""

import json
import shutil
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from flwr.app import Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from client.app import app
from client.policy import Action, Policy
from client.proposals import approve, proposals, refuse
from client.site import SiteConfig, load_site
from common.axes import Weights
from common.batchnorm import local_names
from common.codec import content_hash, read_toml, write_toml
from common.messages import (
    FloorTask,
    Measured,
    MeasureTask,
    Prepared,
    PrepareTask,
    RankTask,
    TestTask,
    TrainTask,
    Update,
)
from common.network import build_network, weights_of
from common.planning.plan import Plan, configuration_of
from common.planning.planner import plan_run
from common.task import load_task
from common.wire import body_of, n_bytes, to_content
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")
KINDS: dict[Action, str] = {
    "measure": "query.measure",
    "prepare": "query.prepare",
    "keys": "query.keys",
    "agree": "query.agree",
    "unmask": "query.unmask",
    "first_stage": "query.first_stage",
    "train": "train",
    "personalise": "train.personalise",
    "validate": "evaluate.validate",
    "postprocess": "evaluate.postprocess",
    "test": "evaluate.test",
    "rank": "evaluate.rank",
    "floor": "evaluate.floor",
}


@dataclass(frozen=True)
class Hospital:
    """A site's file, and what a coordinator may ask of it."""

    file: Path
    plan: Plan
    terms: PrepareTask
    weights: Weights

    @property
    def state(self) -> Path:
        return self.file.parent / "state"

    @property
    def site(self) -> SiteConfig:
        return load_site(self.file)

    def allow(self, **rules: object) -> None:
        """Change the site's policy, as a person does."""
        site = read_toml(SiteConfig, self.file)
        write_toml(self.file, replace(site, policy=replace(site.policy, **rules)))

    def content(self, action: Action) -> RecordDict:
        run, plan_hash = self.terms.run, self.plan.hash
        match action:
            case "measure":
                return to_content(MeasureTask(run=run, task=TASK))
            case "prepare":
                return to_content(self.terms)
            case "train":
                task = TrainTask(
                    run=run, plan_hash=plan_hash, method="fedavg", round=1, proximal_mu=0.0
                )
                return to_content(task, self.weights)
            case "test":
                asked = TestTask(run=run, plan_hash=plan_hash, method="fedavg", pictures=False)
                return to_content(asked, self.weights)
            case "floor":
                return to_content(FloorTask(run=run, plan_hash=plan_hash))
            case _:
                ranked = RankTask(run=run, plan_hash=plan_hash, methods={"fedavg": ("fedavg",)})
                return to_content(ranked)

    def ask(self, action: Action) -> Message:
        return ask(self.file, action, self.content(action))

    def files(self) -> dict[str, bytes]:
        """Return all that the site keeps, but its log and what waits for a person."""
        found = [path for path in self.state.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.state)): path.read_bytes()
            for path in found
            if path.name != "site.log" and path.parent.name != "proposals"
        }

    def refused(self, action: Action, rule: str) -> None:
        """Demand a refusal by this rule that leaves nothing behind."""
        before = self.files()
        reply = self.ask(action)
        assert (reply.has_error() and reply.error.reason) == f"policy:{rule}"
        assert self.files() == before
        assert (
            f" refused: {'proposal' if rule == 'approval' else ''}"
            in (self.state / "site.log").read_text()
        )


def ask(file: Path, action: Action, content: RecordDict) -> Message:
    grid = InProcessGrid(app, {1: {"site": str(file)}})
    (reply,) = grid.send_and_receive([Message(content, 1, KINDS[action])])
    return reply


def held_out_as(hospital: Hospital) -> Hospital:
    """Return the same site, asked to test and not to train."""
    config = hospital.terms.config
    federation = replace(config.federation, held_out=("alpha",), min_sites=1)
    terms = replace(hospital.terms, config=replace(config, federation=federation))
    return replace(hospital, terms=terms)


def good(reply: Message) -> bool:
    return not reply.has_error()


@pytest.fixture(scope="session")
def prepared(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    """Return a site of three cases that agreed on a plan; copied by every test."""
    home = tmp_path_factory.mktemp("policy")
    file = tiny_study.write_sites(home)["alpha"]
    measured = body_of(
        Measured, ask(file, "measure", to_content(MeasureTask(run="run", task=TASK))).content
    )
    config = tiny_study.config
    plan = plan_run(measured.fingerprint, config)
    terms = PrepareTask(
        run="run",
        task=TASK,
        config=config,
        fingerprint=measured.fingerprint,
        plan_hash=plan.hash,
    )
    network = build_network(TASK, configuration_of(plan, "3d_fullres"), config.model)
    kept = local_names(network, config.model.batch_norm)
    weights = {name: w for name, w in weights_of(network).items() if name not in kept}
    hospital = Hospital(file, plan, terms, weights)
    assert good(hospital.ask("prepare"))
    return hospital


@pytest.fixture
def hospital(prepared: Hospital, tmp_path: Path) -> Hospital:
    shutil.copytree(prepared.file.parent, tmp_path / "alpha")
    file = tmp_path / "alpha" / "site.toml"
    site = read_toml(SiteConfig, file)
    write_toml(file, replace(site, state=str(tmp_path / "alpha" / "state")))
    return replace(prepared, file=file)


def test_a_file_of_before_allows_what_it_allowed(hospital):
    assert hospital.site.policy.actions is None
    assert good(hospital.ask("measure"))
    assert good(hospital.ask("prepare"))
    reply = hospital.ask("train")
    assert body_of(Update, reply.content).n_steps == 2


@pytest.mark.parametrize("action", ["measure", "prepare", "train"])
def test_an_action_that_is_not_listed_is_refused(hospital, action: Action):
    hospital.allow(actions=tuple({"measure", "prepare", "train", "rank"} - {action}))
    hospital.refused(action, "action")
    hospital.allow(actions=(action,))
    assert good(hospital.ask(action))


@pytest.mark.parametrize("action", ["measure", "prepare", "train"])
@pytest.mark.parametrize("allowed", ["brats-2021", content_hash(TASK)])
def test_a_task_that_is_not_listed_is_refused_with_every_message(
    hospital, action: Action, allowed: str
):
    hospital.allow(tasks=("hippocampus", "0" * 64))
    hospital.refused(action, "task")
    hospital.allow(tasks=("hippocampus", allowed))
    assert good(hospital.ask(action))


@pytest.mark.parametrize("action", ["prepare", "train"])
def test_a_plan_that_is_not_listed_is_refused(hospital, action: Action):
    hospital.allow(plans=("0" * 64,))
    hospital.refused(action, "plan")
    hospital.allow(plans=("0" * 64, hospital.plan.hash))
    assert good(hospital.ask(action))


@pytest.mark.parametrize("action", ["prepare", "train"])
def test_a_run_that_shows_single_updates_is_refused_where_only_sums_may_be_seen(
    hospital, action: Action
):
    hospital.allow(updates="secure-sum")
    hospital.refused(action, "privacy")
    hospital.allow(updates="plain")
    assert good(hospital.ask(action))


@pytest.mark.parametrize("action", ["prepare", "train"])
def test_a_configuration_that_is_not_listed_is_refused(hospital, action: Action):
    hospital.allow(configs=("0" * 64,))
    hospital.refused(action, "config")
    hospital.allow(configs=(content_hash(hospital.terms.config),))
    assert good(hospital.ask(action))


def test_nothing_is_prepared_or_trained_before_a_person_approves_exactly_that(hospital):
    hospital.allow(approval="person")
    hospital.refused("prepare", "approval")
    hospital.refused("train", "approval")  # what was agreed on before counts no more
    (proposal,) = proposals(hospital.site)
    assert (proposal.answer, proposal.run) == ("waiting", "run")
    path = hospital.state / "proposals" / f"{proposal.short}.json"
    assert json.loads(path.read_text())["summary"][0].startswith("asked by: the coordinator")
    approve(hospital.site, proposal.short)
    assert good(hospital.ask("prepare"))
    assert good(hospital.ask("train"))
    longer = replace(hospital.terms.config.federation, rounds=3)
    config = replace(hospital.terms.config, federation=longer)
    other = replace(hospital, terms=replace(hospital.terms, config=config))
    other.refused("prepare", "approval")
    assert [p.answer for p in proposals(hospital.site)].count("waiting") == 1
    assert good(hospital.ask("prepare"))  # what was approved once stays approved


def test_what_a_person_refused_is_a_configuration_that_is_not_allowed(hospital):
    hospital.allow(approval="person")
    hospital.refused("prepare", "approval")
    refuse(hospital.site, proposals(hospital.site)[0].hash)
    hospital.refused("prepare", "config")
    hospital.allow(approval="none")
    hospital.refused("train", "config")


def test_plan_and_configuration_that_the_policy_names_need_no_person(hospital):
    hospital.allow(approval="person", plans=(hospital.plan.hash,))
    hospital.refused("prepare", "approval")
    hospital.allow(configs=(content_hash(hospital.terms.config),))
    assert good(hospital.ask("prepare"))


def test_more_epochs_than_a_day_has_are_refused(hospital):
    # 2 steps of 2 patches over 2 training cases: 2 epochs
    hospital.allow(max_epochs_per_day=1.9)
    hospital.refused("train", "epochs")
    hospital.allow(max_epochs_per_day=3.9)
    assert good(hospital.ask("train"))
    hospital.refused("train", "epochs")  # also after a restart: every message is a new process


def test_more_hours_than_a_day_has_are_refused(hospital):
    day = date.today().isoformat()
    spent = {"day": day, "epochs": 0.0, "seconds": 1800.0}
    (hospital.state / "trained-today.json").write_text(json.dumps(spent))
    hospital.allow(max_hours_per_day=0.5)
    hospital.refused("train", "hours")
    hospital.allow(max_hours_per_day=2)
    assert good(hospital.ask("train"))
    after = json.loads((hospital.state / "trained-today.json").read_text())
    assert 1800 < after["seconds"] < 1800 + 600  # less than the slice that was written ahead


@pytest.mark.parametrize("action", ["prepare", "train"])
def test_training_without_the_privacy_that_is_demanded_is_refused(hospital, action: Action):
    hospital.allow(max_epsilon=8.0)
    hospital.refused(action, "privacy")
    assert good(hospital.ask("measure"))
    hospital.allow(max_epsilon=None)
    assert good(hospital.ask(action))


@pytest.mark.parametrize("action", ["measure", "prepare", "train"])
def test_a_site_with_too_few_cases_takes_no_part(hospital, action: Action):
    hospital.allow(min_cases=4)
    hospital.refused(action, "cases")
    hospital.allow(min_cases=3)
    assert good(hospital.ask(action))


def test_a_held_out_site_that_releases_no_metrics_refuses(hospital):
    held_out = held_out_as(hospital)
    assert body_of(Prepared, held_out.ask("prepare").content).n_training_cases == 3
    held_out.allow(metrics="none", pictures=False)
    for action in ("prepare", "test", "floor", "rank"):
        held_out.refused(action, "metrics")
    held_out.allow(metrics="cases")
    assert good(held_out.ask("prepare"))


def test_a_message_that_is_too_large_is_refused(hospital):
    size = n_bytes(hospital.content("train")) / 2**20
    hospital.allow(max_message_mb=size * 0.99)
    hospital.refused("train", "size")
    hospital.allow(max_message_mb=size * 1.5)
    assert good(hospital.ask("train"))


def test_an_answer_that_is_too_large_is_not_given(hospital):
    held_out = held_out_as(hospital)
    assert good(held_out.ask("prepare"))
    assert good(held_out.ask("test"))
    asked = n_bytes(held_out.content("rank"))
    answered = n_bytes(held_out.ask("rank").content)
    assert asked < answered
    held_out.allow(max_message_mb=(asked + answered) / 2 / 2**20)
    held_out.refused("rank", "size")


def test_no_refusal_and_no_proposal_sends_more_than_a_code(hospital):
    hospital.allow(approval="person", max_epsilon=None)
    reply = hospital.ask("prepare")
    assert vars(reply.error) == {"_code": 4100, "_reason": "policy:approval"}


# Whatever is listed


@pytest.fixture(scope="session")
def empty_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a site whose data do not exist: who looks for them answers "data"."""
    home = tmp_path_factory.mktemp("empty")
    policy = Policy(metrics="cases", validation_means=True, pictures=False, fingerprint="exact")
    site = SiteConfig(name="a", data=str(home / "none"), state=str(home / "state"), policy=policy)
    write_toml(home / "site.toml", site)
    return home / "site.toml"


@given(st.sets(st.sampled_from(get_args(Action))), st.sampled_from(get_args(Action)))
def test_an_action_that_is_not_listed_is_never_executed(
    empty_site: Path, allowed: set[Action], asked: Action
):
    site = read_toml(SiteConfig, empty_site)
    policy = replace(site.policy, actions=tuple(sorted(allowed)), tasks=None)
    write_toml(empty_site, replace(site, policy=policy))
    reply = ask(empty_site, asked, RecordDict())  # which cannot be read
    assert reply.error.reason == ("message" if asked in allowed else "policy:action")


@given(
    st.sets(st.sampled_from(["brats-2021", "kits-2019", content_hash(TASK), "0" * 64])),
    st.sampled_from(["brats-2021", "brats-2023", "hippocampus"]),
)
def test_a_task_that_is_not_listed_is_never_looked_for(
    empty_site: Path, allowed: set[str], asked: str
):
    task = load_task(asked)
    site = read_toml(SiteConfig, empty_site)
    policy = replace(site.policy, actions=None, tasks=tuple(sorted(allowed)))
    write_toml(empty_site, replace(site, policy=policy))
    reply = ask(empty_site, "measure", to_content(MeasureTask(run="run", task=task)))
    listed = asked in allowed or content_hash(task) in allowed
    assert reply.error.reason == ("data" if listed else "policy:task")


def test_every_action_of_a_policy_is_one_of_the_apps():
    assert set(KINDS) == set(get_args(Action))
