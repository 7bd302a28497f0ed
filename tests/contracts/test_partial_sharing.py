"""Partial sharing in a whole federation: the same program, fewer bytes, and nothing lost at 0."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.app import app
from common.task import load_task
from server.event_log import EventLog, read_events
from server.events import Note, SiteTrained
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, latest_checkpoint
from simulation.grid import InProcessGrid


def federated(study, home: Path, fraction: float) -> tuple[RunFolder, list[object]]:
    """Run FedAvg and partial sharing in one process and return the folder and the events."""
    methods = ("fedavg", "partial-sharing")
    federation = replace(study.config.federation, methods=methods, withheld_fraction=fraction)
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
    return folder, [event for _, event in read_events(folder.events)]


def uploads(events: list[object], method: str) -> list[int]:
    return [e.upload_bytes for e in events if isinstance(e, SiteTrained) and e.method == method]


def weights(folder: RunFolder, method: str) -> dict[str, bytes]:
    found = latest_checkpoint(folder.checkpoints(method))
    assert found is not None
    assert found[0] == 2
    return {name: tensor.tobytes() for name, tensor in found[1]["global"].items()}


def test_withholding_half_saves_nearly_half_of_the_bytes_and_is_noted(tiny_study, tmp_path: Path):
    folder, events = federated(tiny_study, tmp_path, 0.5)
    whole, part = uploads(events, "fedavg"), uploads(events, "partial-sharing")
    assert len(whole) == len(part) == 4  # two sites, two rounds
    assert 0.4 < sum(part) / sum(whole) < 0.54  # 1/2 of the values, 1/32 for the places
    assert weights(folder, "partial-sharing") != weights(folder, "fedavg")
    text = "withheld_fraction = 0.5 is outside the published range of partial sharing, 0 to 0.4"
    assert Note(text=text) in events


def test_withholding_nothing_is_fedavg_bit_for_bit(tiny_study, tmp_path: Path):
    folder, events = federated(tiny_study, tmp_path, 0.0)
    assert weights(folder, "partial-sharing") == weights(folder, "fedavg")
    # the same but for the digits of the seconds
    assert uploads(events, "partial-sharing") == pytest.approx(uploads(events, "fedavg"), abs=50)
