"""Plant a patient's name in every file and folder name, then search everything that was sent."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message

from client.app import app
from client.scoring.kept_scores import KeptScores
from client.site import SiteConfig
from common.codec import read_json, read_toml, write_toml
from common.errors import FederationError
from common.evaluation.scores import read_scores
from common.messages import MeasureTask
from common.task import load_task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid

PATIENT = "Mustermann_Erika"
METHODS = ("fedavg", "local-only")


class Eavesdropper(InProcessGrid):
    """Keeps the bytes of every reply."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.heard: list[bytes] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message in super().pull_messages(message_ids):
            self.heard.append(sent_bytes(message))
            yield message


def sent_bytes(message: Message) -> bytes:
    if message.has_error():
        return f"{message.error.code} {message.error.reason}".encode()
    content = message.content
    texts = [record["json"] for record in content.config_records.values()]
    arrays = [array.data for record in content.array_records.values() for array in record.values()]
    return b"\n".join([*texts, *arrays])


@pytest.fixture
def named_study(tiny_study, tmp_path: Path):
    """Return the tiny study with a patient's name in every case name and in the folder's."""
    folder = tmp_path / f"archive_{PATIENT}"
    sites = {}
    for site, cases in tiny_study.sites.items():
        sites[site] = tuple(f"{PATIENT}_{case}" for case in cases)
        for case in cases:
            new = folder / f"{PATIENT}_{case}"
            shutil.copytree(tiny_study.data / case, new)
            for path in list(new.iterdir()):
                path.rename(new / f"{PATIENT}_{path.name}")
    federation = replace(
        tiny_study.config.federation,
        methods=METHODS,
        held_out=("beta",),
        min_sites=1,
        rounds=1,
    )
    return replace(
        tiny_study,
        config=replace(tiny_study.config, federation=federation),
        data=folder,
        sites=sites,
    )


def listening_grid(study, home: Path) -> Eavesdropper:
    files = study.write_sites(home)
    nodes = {number: {"site": str(path)} for number, path in enumerate(files.values(), start=1)}
    return Eavesdropper(app, nodes)


def test_no_reply_of_a_whole_run_holds_a_patients_name(named_study, tmp_path: Path):
    grid = listening_grid(named_study, tmp_path / f"state_{PATIENT}")
    folder = RunFolder(tmp_path / "run")
    task = load_task("brats-2021")
    run(named_study.config, task, FlowerSites(grid), folder, EventLog(folder.events), device="")

    n_messages = len(grid.heard)
    # measure 2, prepare 2, two methods with train and validate, test 2, floor 1
    assert n_messages == 2 + 2 + 2 * (1 + 1) + 2 + 1
    assert [text for text in grid.heard if PATIENT.encode() in text] == []
    written = [path for path in folder.path.rglob("*") if path.is_file()]
    assert [path for path in written if PATIENT.encode() in path.read_bytes()] == []
    at_beta = tmp_path / f"state_{PATIENT}" / "beta" / "state" / "runs" / "run"
    numbers = read_json(dict[str, int], at_beta / "pseudonyms.json")
    assert sorted(numbers) == sorted(named_study.sites["beta"])
    for method in METHODS:  # every number is the same case's in every method
        sent = read_scores(folder.scores(method, "beta"))
        model = "local-only@alpha" if method == "local-only" else method
        kept = read_json(KeptScores, at_beta / "tested" / f"{model}.json").scores
        assert list(sent) == [f"case-{n:04d}" for n in (1, 2, 3, 4)]
        assert {case: sent[f"case-{n:04d}"] for case, n in numbers.items()} == kept


def test_post_processing_and_own_models_are_asked_about_without_a_name(named_study, tmp_path: Path):
    config = named_study.config
    chosen = replace(config.evaluation, postprocessing="chosen", personalised_steps=1)
    study = replace(named_study, config=replace(config, evaluation=chosen))
    grid = listening_grid(study, tmp_path / f"state_{PATIENT}")
    folder = RunFolder(tmp_path / "run")
    task = load_task("brats-2021")
    run(study.config, task, FlowerSites(grid), folder, EventLog(folder.events), device="")
    assert any(b"n_better" in text for text in grid.heard)
    assert any(b'"own":' in text for text in grid.heard)
    assert [text for text in grid.heard if PATIENT.encode() in text] == []


def test_an_error_about_a_patients_file_is_sent_as_a_code_only(named_study, tmp_path: Path):
    for path in named_study.data.rglob("*_flair.nii.gz"):
        path.write_bytes(path.read_bytes()[:100])
    home = tmp_path / "state"
    grid = listening_grid(named_study, home)
    task = MeasureTask(run="run", task=load_task("brats-2021"))

    answers = list(FlowerSites(grid).measure(task, 2, 1.0))

    assert [answer.code for answer in answers] == ["data", "data"]
    assert [text for text in grid.heard if PATIENT.encode() in text] == []
    log = (home / "alpha" / "state" / "site.log").read_text()
    assert PATIENT in log  # the hospital itself must be told which file it is


def test_a_refused_secure_sum_is_a_code_only(named_study, tmp_path: Path):
    home = tmp_path / f"state_{PATIENT}"
    for path in named_study.write_sites(home).values():
        site = read_toml(SiteConfig, path)
        write_toml(path, replace(site, policy=replace(site.policy, fingerprint="secure-sum")))
    files = [home / site / "site.toml" for site in named_study.sites]
    grid = Eavesdropper(app, {n: {"site": str(path)} for n, path in enumerate(files, start=1)})
    folder = RunFolder(tmp_path / "run")
    log = EventLog(folder.events)
    with pytest.raises(FederationError, match="alpha: policy") as stopped:
        run(named_study.config, load_task("brats-2021"), FlowerSites(grid), folder, log, device="")
    assert len(grid.heard) == 2 + 1  # two describe themselves, the training one refuses
    assert [text for text in grid.heard if PATIENT.encode() in text] == []
    assert PATIENT not in str(stopped.value)


REFUSING = {  # how a policy refuses, and with which code
    "action": {"actions": ("measure",)},
    "task": {"tasks": (PATIENT,)},
    "plan": {"plans": ("0" * 64,)},
    "config": {"configs": ("0" * 64,)},
    "privacy": {"max_epsilon": 1.0},
    "cases": {"min_cases": 9},
    "size": {"max_message_mb": 1e-6},
    "approval": {"approval": "person"},
}


@pytest.mark.parametrize("rule", REFUSING)
def test_no_refusal_and_no_proposal_holds_a_patients_name(named_study, tmp_path: Path, rule: str):
    federation = replace(named_study.config.federation, held_out=(), join_timeout_s=0.1)
    study = replace(named_study, config=replace(named_study.config, federation=federation))
    home = tmp_path / f"state_{PATIENT}"
    grid = listening_grid(study, home)
    for path in (home / name / "site.toml" for name in study.sites):
        site = read_toml(SiteConfig, path)
        write_toml(path, replace(site, policy=replace(site.policy, **REFUSING[rule])))
    folder = RunFolder(tmp_path / "run")
    log = EventLog(folder.events)
    with pytest.raises(FederationError, match=f"policy:{rule}") as stopped:
        run(study.config, load_task("brats-2021"), FlowerSites(grid), folder, log, device="")
    assert f"4100 policy:{rule}".encode() in grid.heard
    assert [text for text in grid.heard if PATIENT.encode() in text] == []
    assert PATIENT not in str(stopped.value)
    written = [path for path in folder.path.rglob("*") if path.is_file()]
    assert [path for path in written if PATIENT.encode() in path.read_bytes()] == []
    asked = list(home.rglob("proposals/*.json"))
    assert len(asked) == (2 if rule == "approval" else 0)
    assert [path for path in asked if PATIENT in path.read_text()] == []


def test_a_run_whose_sites_all_fail_does_not_look_finished(named_study, tmp_path: Path):
    shutil.rmtree(named_study.data)
    grid = listening_grid(named_study, tmp_path / "state")
    folder = RunFolder(tmp_path / "run")
    log = EventLog(folder.events)
    with pytest.raises(FederationError, match="node 1 could not describe its data: data"):
        run(named_study.config, load_task("brats-2021"), FlowerSites(grid), folder, log, device="")
    events = [json.loads(line)["event"] for line in folder.events.read_text().splitlines()]
    assert "RunFinished" not in events
