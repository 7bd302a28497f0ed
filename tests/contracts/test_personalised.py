"""A site's own model is made from the shared one and compared with it; it changes nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from common.task import load_task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, load_model
from simulation.grid import InProcessGrid

METHODS = ("fedavg", "local-only")


def federate(study, home: Path, steps: int | None, validation_fraction: float = 0.3) -> RunFolder:
    config = replace(
        study.config,
        federation=replace(study.config.federation, methods=METHODS),
        training=replace(
            study.config.training, validation_fraction=validation_fraction, compile="off"
        ),
        evaluation=replace(study.config.evaluation, personalised_steps=steps),
    )
    files = study.write_sites(home).values()
    nodes = {n: {"site": str(path)} for n, path in enumerate(files, start=1)}
    folder = RunFolder(home / "run")
    for _ in range(2):  # the second time it is resumed
        sites, log = FlowerSites(InProcessGrid(app, nodes)), EventLog(folder.events)
        run(config, load_task(config.task), sites, folder, log, device="")
    return folder


def events(folder: RunFolder, kind: str) -> list[dict]:
    lines = map(json.loads, folder.events.read_text().splitlines())
    return [event for event in lines if event["event"] == kind]


def files_of_sites(home: Path) -> set[str]:
    kept = (path.relative_to(home) for path in home.glob("*/state/runs/**/*") if path.is_file())
    return {str(path) for path in kept}


@pytest.fixture(scope="module")
def without(tiny_study, tmp_path_factory) -> RunFolder:
    return federate(tiny_study, tmp_path_factory.mktemp("without"), None)


def test_every_training_site_compares_the_shared_model_once(tiny_study, tmp_path: Path):
    found = events(federate(tiny_study, tmp_path, 3), "SitePersonalised")
    assert [(e["method"], e["site"], e["n_steps"]) for e in found] == [
        ("fedavg", "alpha", 3),
        ("fedavg", "beta", 3),
    ]
    for event in found:
        assert list(event["shared"]) == list(event["own"]) == ["WT", "TC", "ET"]


def test_the_shared_model_s_dice_is_that_of_the_last_validation(tiny_study, tmp_path: Path):
    folder = federate(tiny_study, tmp_path, 3)
    last = {
        e["site"]: e["dice"]
        for e in events(folder, "SiteValidated")
        if (e["method"], e["round"]) == ("fedavg", 2)
    }
    assert {e["site"]: e["shared"] for e in events(folder, "SitePersonalised")} == last


def test_comparing_changes_no_weight_and_leaves_nothing_at_a_site(
    tiny_study, without: RunFolder, tmp_path: Path
):
    folder = federate(tiny_study, tmp_path, 3)
    assert events(without, "SitePersonalised") == []
    plain, compared = (load_model(one.model("fedavg")) for one in (without, folder))
    assert plain.keys() == compared.keys()
    for name, tensor in plain.items():
        np.testing.assert_array_equal(compared[name], tensor, err_msg=name)
    assert files_of_sites(tmp_path) == files_of_sites(without.path.parent)


def test_a_site_without_validation_cases_is_a_note(tiny_study, tmp_path: Path):
    folder = federate(tiny_study, tmp_path, 3, validation_fraction=0.0)
    assert events(folder, "SitePersonalised") == []
    notes = {event["text"] for event in events(folder, "Note")}
    assert (
        "fedavg: alpha did not compare its own model: it has no validation cases, or does not tell"
    ) in notes
