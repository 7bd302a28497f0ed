"""What sites send in fewer bytes gives nearly the same model, and their rest never leaves them."""

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

TASK = load_task("brats-2021")
SHARE = {"float16": 0.55, "bfloat16": 0.55, "int8": 0.3}
"""Most bytes of float32's: half or a quarter, and what tensors of one axis and the index take."""


def trained(study, home: Path, **federation: object) -> RunFolder:
    wanted = replace(study.config.federation, **federation)
    study = replace(study, config=study.config_with(federation=wanted))
    files = study.write_sites(home)
    grid = InProcessGrid(app, {n: {"site": str(p)} for n, p in enumerate(files.values(), start=1)})
    folder = RunFolder(home / "run")
    run(study.config, TASK, FlowerSites(grid), folder, EventLog(folder.events), device="test")
    return folder


def upload_bytes(folder: RunFolder) -> int:
    lines = map(json.loads, folder.events.read_text().splitlines())
    return sum(event["upload_bytes"] for event in lines if event["event"] == "SiteTrained")


@pytest.fixture(scope="module")
def whole(tiny_study, tmp_path_factory) -> RunFolder:
    return trained(tiny_study, tmp_path_factory.mktemp("whole"))


def test_the_bytes_of_question_and_answer_are_in_the_log(whole):
    lines = map(json.loads, whole.events.read_text().splitlines())
    rounds = [event for event in lines if event["event"] == "SiteTrained"]
    size = sum(tensor.nbytes for tensor in load_model(whole.model("fedavg")).values())
    for event in rounds:
        assert size < event["upload_bytes"] < 1.5 * size
        assert size < event["download_bytes"] < 1.5 * size


@pytest.mark.parametrize("upload", sorted(SHARE))
def test_a_model_of_rounded_updates_is_close_to_that_of_whole_ones(
    tiny_study, tmp_path, whole, upload
):
    folder = trained(tiny_study, tmp_path, upload=upload)
    assert upload_bytes(folder) < SHARE[upload] * upload_bytes(whole)
    one, other = (load_model(done.model("fedavg")) for done in (whole, folder))
    for name, tensor in one.items():
        assert np.abs(other[name] - tensor).max() < 0.02, name
    kept = sorted(path.name for path in tmp_path.glob("*/state/runs/run/residuals/fedavg/*"))
    assert kept == ["round-0001.safetensors"] * 2 + ["round-0002.safetensors"] * 2


def test_rounded_runs_of_one_seed_are_equal_bit_for_bit(tiny_study, tmp_path):
    one = trained(tiny_study, tmp_path / "one", upload="int8")
    other = trained(tiny_study, tmp_path / "other", upload="int8")
    assert one.model("fedavg").read_bytes() == other.model("fedavg").read_bytes()
