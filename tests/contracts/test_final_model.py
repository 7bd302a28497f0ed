"""Which weights of a run are tested: here the average over rounds, whatever interrupted the run."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from client.app import app
from common.task import load_task
from server.event_log import EventLog, read_events
from server.events import Note
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, checkpoint_file, load_model, read_state
from simulation.grid import InProcessGrid


def average_of(study, home: Path) -> RunFolder:
    """Run the study, or resume it, with the average of its rounds as its final model."""
    federation = replace(study.config.federation, final_model="average", average_decay=0.75)
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


def test_the_tested_model_is_the_average_over_the_rounds_and_the_log_says_so(
    tiny_study, tmp_path: Path
):
    folder = average_of(tiny_study, tmp_path)
    first, second = (
        read_state(checkpoint_file(folder.checkpoints("fedavg"), n))["global"] for n in (1, 2)
    )
    tested = load_model(folder.model("fedavg"))
    assert tested.keys() == second.keys()
    for name, tensor in tested.items():
        expected = (3 * first[name].astype(np.float64) + second[name]) / 4
        np.testing.assert_allclose(tensor, expected, rtol=1e-7)
    assert any((tested[name] != second[name]).any() for name in tested)
    text = "fedavg: tested with the moving average of its weights over 2 rounds, decay 0.75"
    assert Note(text=text) in [event for _, event in read_events(folder.events)]


def test_a_run_that_lost_its_last_round_ends_with_the_same_average(tiny_study, tmp_path: Path):
    undisturbed = average_of(tiny_study, tmp_path / "undisturbed").model("fedavg").read_bytes()
    folder = average_of(tiny_study, tmp_path / "killed")
    checkpoint_file(folder.checkpoints("fedavg"), 2).unlink()
    folder.model("fedavg").unlink()
    lines = folder.events.read_text().splitlines()
    cut = next(n for n, line in enumerate(lines) if '"RoundFinished"' in line)
    folder.events.write_text("\n".join(lines[: cut + 1]) + "\n")
    again = average_of(tiny_study, tmp_path / "killed")
    assert again.model("fedavg").read_bytes() == undisturbed
