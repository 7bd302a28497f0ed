"""FedDyn in a whole federation: its first round at a site is FedProx's, then the drift tells."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from client.app import app
from common.task import load_task
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, checkpoint_file, read_state
from simulation.grid import InProcessGrid


def federated(study, home: Path) -> RunFolder:
    """Run, or resume, FedProx and FedDyn with the same weight of their terms."""
    federation = replace(
        study.config.federation,
        methods=("fedprox", "feddyn"),
        proximal_mu=0.5,
        dynamic_alpha=0.5,
        weighting="uniform",
    )
    files = study.write_sites(home)
    nodes = {number: {"site": str(path)} for number, path in enumerate(files.values(), start=1)}
    folder = RunFolder(home / "run")
    run(
        study.config_with(federation=federation),
        load_task(study.config.task),
        FlowerSites(InProcessGrid(app, nodes)),
        folder,
        EventLog(folder.events),
        device="",
    )
    return folder


def after(folder: RunFolder, method: str, round_: int) -> dict[str, dict[str, np.ndarray]]:
    return read_state(checkpoint_file(folder.checkpoints(method), round_))


def test_the_drifts_of_all_sites_are_the_correction_and_the_first_round_is_fedprox_s(
    tiny_study, tmp_path: Path
):
    folder = federated(tiny_study, tmp_path)
    mean, dynamic = after(folder, "fedprox", 1)["global"], after(folder, "feddyn", 1)
    for name, tensor in mean.items():
        # w = mean - r with r = -(mean - w0)
        expected = tensor - dynamic["correction"][name]
        np.testing.assert_array_equal(dynamic["global"][name], expected.astype(np.float32))
    last = after(folder, "feddyn", 2)
    drifts = [
        load_file(tmp_path / site / "state" / "runs" / "run" / "drift" / "feddyn" / name)
        for site in ("alpha", "beta")
        for name in ("round-0002.safetensors",)
    ]
    assert drifts[0].keys() == last["correction"].keys()
    for name, correction in last["correction"].items():
        # h = alpha r is the mean of the sites' g_i = alpha s_i, as in the paper
        mean_drift = (drifts[0][name].astype(np.float64) + drifts[1][name]) / 2
        np.testing.assert_allclose(correction, mean_drift, atol=1e-6)


def test_a_run_that_lost_its_last_round_ends_with_the_same_weights(tiny_study, tmp_path: Path):
    undisturbed = after(federated(tiny_study, tmp_path / "undisturbed"), "feddyn", 2)
    folder = federated(tiny_study, tmp_path / "killed")
    checkpoint_file(folder.checkpoints("feddyn"), 2).unlink()
    lines = folder.events.read_text().splitlines()
    last = max(n for n, line in enumerate(lines) if json.loads(line)["event"] == "RoundFinished")
    folder.events.write_text("\n".join(lines[:last]) + "\n")
    again = after(federated(tiny_study, tmp_path / "killed"), "feddyn", 2)
    for group, tensors in undisturbed.items():
        for name, tensor in tensors.items():
            assert again[group][name].tobytes() == tensor.tobytes()
