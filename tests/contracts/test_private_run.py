"""A whole federation under patient-level privacy: what is sent has noise, and no loss or seed."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message

from client.app import app
from client.privacy.ledger import load_account, open_ledger
from client.rounds import train_round
from client.site import Agreement, load_site
from common.codec import read_json, write_json
from common.errors import PolicyError
from common.messages import TrainTask, Update
from common.privacy.settings import PatientPrivacy
from common.task import load_task
from common.wire import body_of
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, load_model
from simulation.grid import InProcessGrid

PRIVACY = PatientPrivacy(
    delta=1e-3, clip_norm=0.1, sampling_rate=0.5, patches_per_patient=2, noise_multiplier=0.7
)


class Listening(InProcessGrid):
    """Keeps every reply."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.heard: list[Message] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message in super().pull_messages(message_ids):
            self.heard.append(message)
            yield message


def federate(study, home: Path, **changes: object) -> tuple[RunFolder, list[Message]]:
    config = study.config
    config = replace(
        config,
        model=replace(config.model, norm="instance"),
        training=replace(config.training, compile="off"),
        federation=replace(config.federation, **{"methods": ("fedavg",), **changes}),
        privacy=PRIVACY,
    )
    files = study.write_sites(home).values()
    for path in files:
        open_ledger(load_site(path).privacy_ledger_file, epsilon=100.0, delta=1e-2)
    grid = Listening(app, {n: {"site": str(path)} for n, path in enumerate(files, start=1)})
    folder = RunFolder(home / "run")
    task = load_task(config.task)
    run(config, task, FlowerSites(grid), folder, EventLog(folder.events), device="")
    return folder, grid.heard


@pytest.fixture(scope="module")
def private(tiny_study, tmp_path_factory) -> tuple[RunFolder, list[Message], Path]:
    home = tmp_path_factory.mktemp("private")
    return *federate(tiny_study, home), home


def updates(heard: list[Message]) -> list[Update]:
    trained = [message for message in heard if message.metadata.message_type == "train"]
    return [body_of(Update, message.content) for message in trained]


def test_no_training_loss_leaves_and_every_update_says_what_was_spent(private) -> None:
    folder, heard, home = private
    found = updates(heard)
    assert [(update.round, update.n_steps) for update in found] == [(1, 2), (1, 2), (2, 2), (2, 2)]
    assert [update.loss for update in found] == [None] * 4
    assert all(update.spent is not None and update.spent.delta == 1e-3 for update in found)
    events = [json.loads(line) for line in folder.events.read_text().splitlines()]
    assert not any(event.get("loss") for event in events)
    for site in ("alpha", "beta"):  # it stays in the site's own log
        assert "not sent" in (home / site / "state" / "site.log").read_text()


def test_every_step_is_in_the_ledger_with_the_patients_who_could_be_drawn(private) -> None:
    _, _, home = private
    for site, n_patients in (("alpha", 2), ("beta", 3)):  # one more validates
        ledger = load_site(home / site / "site.toml").privacy_ledger_file
        charged = [entry for entry in load_account(ledger).entries if entry.steps is not None]
        assert sum(entry.steps.steps for entry in charged) == 4  # 2 rounds of 2
        assert {entry.patients for entry in charged} == {n_patients}
        assert {entry.steps.noise_multiplier for entry in charged} == {0.7}


def test_the_final_weights_are_noised_and_no_second_run_repeats_them(
    private, tiny_study, tmp_path: Path
) -> None:
    first = load_model(private[0].model("fedavg"))
    second = load_model(federate(tiny_study, tmp_path, rounds=1)[0].model("fedavg"))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert np.isfinite(tensor).all()
        # Noise on every value; of many thousand float32 values a few are equal by chance.
        assert (tensor != second[name]).mean() > 0.99


def test_a_site_without_agreed_noise_refuses_to_train(private, tiny_study, tmp_path: Path) -> None:
    folder, _, home = private
    site = load_site(home / "alpha" / "site.toml")
    agreed_file = site.run_folder("run") / "agreed.json"
    agreed = read_json(Agreement, agreed_file)
    task = TrainTask(
        run="run", plan_hash=agreed.plan.hash, method="fedavg", round=3, proximal_mu=0.0
    )
    weights = load_model(folder.model("fedavg"))
    write_json(agreed_file, replace(agreed, noise_multiplier=None))
    with pytest.raises(PolicyError, match="noise multiplier above 0") as refused:
        train_round(site, task, weights)
    assert refused.value.rule == "privacy"
    assert not site.run_folder("run").joinpath("unfinished").exists()
