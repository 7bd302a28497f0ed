"""What a site does when rounds are missed, data change, or its policy says no."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message
from safetensors.numpy import load_file

from client.app import app
from client.dataset.nifti import read_labels, write_labels
from client.policy import Policy
from client.site import Agreement, SiteConfig
from common.codec import read_json, read_toml, write_toml
from common.errors import ConfigError, FederationError
from common.messages import MeasureTask
from common.task import load_task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.planning.cohort import Changes
from server.run import run
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

TASK = load_task("brats-2021")


class Unreliable(InProcessGrid):
    """Loses the replies of one node to the training messages with these numbers."""

    def lose(self, node: int, numbers: set[int]) -> None:
        self.node, self.numbers, self.seen = node, numbers, 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id]
            lost = asked.metadata.dst_node_id == self.node
            if lost and asked.metadata.message_type == "train":
                self.seen += 1
                if self.seen in self.numbers:
                    del self._waiting[message_id]
                    yield Message(Error(1, "node unavailable"), reply_to=asked)
                    continue
            yield from super().pull_messages([message_id])


def events(folder: RunFolder, kind: str) -> list[dict]:
    lines = map(json.loads, folder.events.read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


def grid_of(kind: type[InProcessGrid], files: Iterable[Path]) -> InProcessGrid:
    return kind(app, {n: {"site": str(path)} for n, path in enumerate(files, start=1)})


def start(study, grid: InProcessGrid, folder: RunFolder) -> None:
    run(study.config, TASK, FlowerSites(grid), folder, EventLog(folder.events), device="")


def with_federation(study, **changes: object):
    federation = replace(study.config.federation, **changes)
    return replace(study, config=replace(study.config, federation=federation))


def test_a_site_that_misses_a_round_trains_again_in_the_next(tiny_study, tmp_path: Path):
    study = with_federation(tiny_study, rounds=3, min_sites=1, retries=0)
    grid = grid_of(Unreliable, study.write_sites(tmp_path).values())
    grid.lose(node=2, numbers={2})
    folder = RunFolder(tmp_path / "run")
    start(study, grid, folder)
    trained = {(event["site"], event["round"]) for event in events(folder, "SiteTrained")}
    everyone = {(site, round_) for site in ("alpha", "beta") for round_ in (1, 2, 3)}
    assert trained == everyone - {("beta", 2)}
    assert [event["site"] for event in events(folder, "SiteFailed")] == ["beta"]


def test_an_unknown_label_keeps_a_site_out_instead_of_becoming_background(
    tiny_study, tmp_path: Path
):
    data = tmp_path / "data"
    shutil.copytree(tiny_study.data, data)
    path = data / "phantom_0001" / "phantom_0001_seg.nii.gz"
    labels, grid = read_labels(path, None)
    write_labels(path, np.where(labels == 4, 3, labels).astype(np.uint8), grid)
    study = replace(tiny_study, data=data)
    sites = FlowerSites(grid_of(InProcessGrid, study.write_sites(tmp_path / "s").values()))
    answers = list(sites.measure(MeasureTask(run="run", task=TASK), 2, 1.0))
    assert sorted(getattr(answer, "code", "good") for answer in answers) == ["data", "good"]


def test_a_new_case_in_the_folder_does_not_move_validation_cases_into_training(
    tiny_study, tmp_path: Path
):
    data = tmp_path / "data"
    shutil.copytree(tiny_study.data, data)
    study = with_federation(replace(tiny_study, data=data), rounds=1)
    files = study.write_sites(tmp_path / "s")
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(InProcessGrid, files.values()), folder)
    agreed = files["beta"].parent / "state" / "runs" / "run" / "agreed.json"
    before = read_json(Agreement, agreed)
    assert set(before.cases).isdisjoint(before.validation_cases)
    assert sorted(before.cases + before.validation_cases) == sorted(study.sites["beta"])


def test_a_run_is_not_resumed_with_other_data(tiny_study, tmp_path: Path):
    study = with_federation(tiny_study, rounds=1)
    files = study.write_sites(tmp_path / "s")
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(InProcessGrid, files.values()), folder)
    fewer = {**study.sites, "beta": study.sites["beta"][:2]}
    files = replace(study, sites=fewer).write_sites(tmp_path / "s")
    with pytest.raises(FederationError, match=r"the data of \['beta'\] changed"):
        start(study, grid_of(InProcessGrid, files.values()), folder)


def test_a_run_is_not_resumed_without_one_of_its_sites(tiny_study, tmp_path: Path):
    study = with_federation(tiny_study, rounds=1, min_sites=1, join_timeout_s=0.1)
    files = study.write_sites(tmp_path / "s")
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(InProcessGrid, files.values()), folder)
    with pytest.raises(FederationError, match="sites: expected 2"):
        start(study, grid_of(InProcessGrid, [files["alpha"]]), folder)


def test_what_a_crash_left_out_of_the_log_is_logged_on_resume(tiny_study, tmp_path: Path):
    study = with_federation(tiny_study, rounds=1)
    grid = grid_of(InProcessGrid, study.write_sites(tmp_path / "s").values())
    folder = RunFolder(tmp_path / "run")
    start(study, grid, folder)
    lines = folder.events.read_text().splitlines()
    cut = next(n for n, line in enumerate(lines) if '"RoundFinished"' in line)
    folder.events.write_text("\n".join(lines[:cut]) + "\n")  # killed just after the checkpoint
    start(study, grid, folder)
    finished = events(folder, "RoundFinished")
    assert [(event["round"], event["n_sites"]) for event in finished] == [(1, 2)]
    assert {event["site"] for event in events(folder, "SiteValidated")} == {"alpha", "beta"}


def test_a_held_out_site_that_releases_no_scores_stops_the_run_before_training(
    tiny_study, tmp_path: Path
):
    study = with_federation(tiny_study, held_out=("beta",), min_sites=1)
    files = study.write_sites(tmp_path / "s")
    site = read_toml(SiteConfig, files["beta"])
    policy = Policy(metrics="none", validation_means=False, pictures=False, fingerprint="exact")
    write_toml(files["beta"], replace(site, policy=policy))
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(FederationError, match="beta could not agree on the plan: policy"):
        start(study, grid_of(InProcessGrid, files.values()), folder)
    assert events(folder, "SiteTrained") == []


@pytest.mark.parametrize(
    ("policy", "answers"),
    [
        ({}, True),
        ({"validation_means": False}, False),
        ({"metrics": "aggregates", "pictures": False}, False),  # one validation case, not five
    ],
)
def test_a_site_says_what_steps_do_to_its_validation_cases_only_if_its_policy_allows(
    tiny_study, tmp_path: Path, policy: dict[str, object], answers: bool
):
    study = with_federation(tiny_study, rounds=1, held_out=("alpha",), min_sites=1)
    evaluation = replace(study.config.evaluation, postprocessing="chosen")
    study = replace(study, config=replace(study.config, evaluation=evaluation))
    files = study.write_sites(tmp_path / "s")
    site = read_toml(SiteConfig, files["beta"])
    write_toml(files["beta"], replace(site, policy=replace(site.policy, **policy)))
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(InProcessGrid, files.values()), folder)
    (chosen,) = events(folder, "PostprocessingChosen")
    assert chosen["sites"] == (["beta"] if answers else [])
    notes = [event["text"] for event in events(folder, "Note")]
    refused = "fedavg: beta did not say which post-processing helps: policy"
    assert any(note.startswith(refused) for note in notes) != answers


def test_the_weights_of_the_best_round_are_tested_if_asked_for(tiny_study, tmp_path: Path):
    study = with_federation(tiny_study, rounds=3, final_model="best")
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(InProcessGrid, study.write_sites(tmp_path / "s").values()), folder)
    by_round: dict[int, list[float]] = {}
    for event in events(folder, "SiteValidated"):
        by_round.setdefault(event["round"], []).append(np.mean([*event["dice"].values()]))
    best = max(sorted(by_round), key=lambda round_: np.mean(by_round[round_]))
    assert set(by_round) == {1, 2, 3}
    notes = [event["text"] for event in events(folder, "Note")]
    assert any(note.startswith(f"fedavg: tested after round {best} of 3") for note in notes)
    (kept,) = folder.checkpoints("fedavg").glob("best-*.safetensors")
    assert kept.stem == f"best-{best:04d}"
    tested, state = load_file(folder.model("fedavg")), load_file(kept)
    assert {f"global/{name}" for name in tested} == set(state)
    assert all((state[f"global/{name}"] == tensor).all() for name, tensor in tested.items())


class Renumbering(InProcessGrid):
    """Gives a node another number after the first round, as a SuperNode without a key gets."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        found = list(messages)
        if any(m.metadata.message_type == "train" for m in found) and 2 in self._contexts:
            self.trained = getattr(self, "trained", 0) + 1
            if self.trained == 2:
                context = self._contexts.pop(2)
                self._contexts[9] = context
        return super().push_messages(found)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            asked = self._waiting[message_id]
            if asked.metadata.dst_node_id in self._contexts:
                yield from super().pull_messages([message_id])
            else:
                del self._waiting[message_id]
                yield Message(Error(3, "node unavailable"), reply_to=asked)


def test_a_site_whose_node_comes_back_under_another_number_is_found_again(
    tiny_study, tmp_path: Path
):
    study = with_federation(tiny_study, rounds=3, min_sites=1, retries=0)
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(Renumbering, study.write_sites(tmp_path).values()), folder)
    trained = {(event["site"], event["round"]) for event in events(folder, "SiteTrained")}
    everyone = {(site, round_) for site in ("alpha", "beta") for round_ in (1, 2, 3)}
    assert trained == everyone - {("beta", 2)}


def test_a_run_directory_has_one_coordinator_at_a_time(tiny_study, tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    files = tiny_study.write_sites(tmp_path)
    with folder.held(), pytest.raises(ConfigError, match="another process is running this run"):
        start(tiny_study, grid_of(InProcessGrid, files.values()), folder)
    assert not folder.events.exists()


def test_a_site_that_leaves_for_ever_is_no_longer_asked_and_the_plan_stays(
    tiny_study, tmp_path: Path
):
    study = with_federation(tiny_study, rounds=2, min_sites=1, retries=0)
    files = study.write_sites(tmp_path / "s")
    folder, task = RunFolder(tmp_path / "run"), load_task("brats-2021")
    with pytest.raises(FederationError, match="round 2"):
        start(study, grid_of(DyingInRoundTwo, files.values()), folder)
    plan = folder.plan.read_bytes()

    def go_on(names: Iterable[str], **changes: tuple[str, ...]) -> None:
        grid = grid_of(InProcessGrid, [files[name] for name in names])
        log = EventLog(folder.events)
        run(
            study.config,
            task,
            FlowerSites(grid),
            folder,
            log,
            device="",
            changes=Changes(**changes),
        )

    with pytest.raises(ConfigError, match="without: expected training sites of the run"):
        go_on(["alpha"], without=("gamma",))
    go_on(["alpha"], without=("beta",))
    assert [event["site"] for event in events(folder, "SiteLeft")] == ["beta"]
    assert folder.plan.read_bytes() == plan
    trained = [(e["site"], e["round"]) for e in events(folder, "SiteTrained") if e["round"] == 2]
    assert trained == [("alpha", 2)]
    go_on(["alpha", "beta"])  # connected again, it stays out
    assert len(events(folder, "SiteJoined")) == 2 + 1 + 1


class DyingInRoundTwo(Unreliable):
    """Loses every reply to the second training message of each node."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.rounds = getattr(self, "rounds", {})
        for message_id in message_ids:
            asked = self._waiting[message_id]
            node = asked.metadata.dst_node_id
            if asked.metadata.message_type == "train":
                self.rounds[node] = self.rounds.get(node, 0) + 1
            if asked.metadata.message_type == "train" and self.rounds[node] == 2:
                del self._waiting[message_id]
                yield Message(Error(3, "node unavailable"), reply_to=asked)
            else:
                yield from InProcessGrid.pull_messages(self, [message_id])


def test_a_hospital_that_comes_to_a_resumed_run_trains_by_its_plan(tiny_study, tmp_path: Path):
    study = with_federation(tiny_study, rounds=2, min_sites=1, retries=0)
    files = study.write_sites(tmp_path / "s")
    folder, task = RunFolder(tmp_path / "run"), load_task("brats-2021")
    with pytest.raises(FederationError, match="round 2"):
        start(study, grid_of(DyingInRoundTwo, [files["alpha"]]), folder)
    plan = folder.plan.read_bytes()
    grid = grid_of(InProcessGrid, files.values())
    changes = Changes(admit=("beta",))
    log = EventLog(folder.events)
    run(study.config, task, FlowerSites(grid), folder, log, device="", changes=changes)
    assert folder.plan.read_bytes() == plan
    trained = {(event["site"], event["round"]) for event in events(folder, "SiteTrained")}
    assert trained == {("alpha", 1), ("alpha", 2), ("beta", 2)}


@pytest.mark.parametrize("method", ["local-only", "feddyn"])
def test_no_hospital_comes_to_methods_that_are_made_for_those_that_began(
    tiny_study, tmp_path: Path, method: str
):
    study = with_federation(
        tiny_study, rounds=1, min_sites=1, methods=("fedavg", method), dynamic_alpha=0.1
    )
    files = study.write_sites(tmp_path / "s")
    folder = RunFolder(tmp_path / "run")
    start(study, grid_of(InProcessGrid, [files["alpha"]]), folder)
    with pytest.raises(ConfigError, match=f"admit: the state of {method} has no place"):
        run(
            study.config,
            TASK,
            FlowerSites(grid_of(InProcessGrid, files.values())),
            folder,
            EventLog(folder.events),
            device="",
            changes=Changes(admit=("beta",)),
        )


def test_a_run_that_begins_has_nobody_to_admit(tiny_study, tmp_path: Path):
    files = tiny_study.write_sites(tmp_path / "s")
    folder, changes = RunFolder(tmp_path / "run"), Changes(admit=("beta",))
    sites = FlowerSites(grid_of(InProcessGrid, files.values()))
    with pytest.raises(ConfigError, match="expected for a run that is resumed"):
        run(
            tiny_study.config,
            TASK,
            sites,
            folder,
            EventLog(folder.events),
            device="",
            changes=changes,
        )
