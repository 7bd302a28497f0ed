"""A simulation that is killed in the middle of a round and resumed ends as an undisturbed one.

Between two sites' answers, which are trained again, and between two steps of one site, which goes
on from its own checkpoint.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from safetensors.numpy import load_file

from common.codec import write_toml
from common.config import Simulation
from server.run_folder import RunFolder, latest_checkpoint

CONSILIUM = Path(sys.executable).with_name("consilium")
TIMEOUT_S = 300
N_STEPS = 8
Log: TypeAlias = Callable[[str], list[dict[str, Any]]]
"""Returns the events of a kind that have happened."""


def test_killed_in_the_middle_of_a_round_and_resumed_gives_the_same_weights(
    tiny_study, tmp_path, events
):
    config = tmp_path / "tiny.toml"
    partition = Simulation(csv=str(tiny_study.data / "partition.csv"))
    federation = replace(tiny_study.config.federation, final_model="best")
    write_toml(config, tiny_study.config_with(simulation=partition, federation=federation))
    arguments = ["simulate", str(config), "--data", str(tiny_study.data), "--out"]

    undisturbed, killed = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "killed")
    log = partial(events, killed.path)
    consilium([*arguments, str(undisturbed.path)])
    kill_when_first_site_finished_round(2, [*arguments, str(killed.path)], log)
    assert latest_checkpoint(killed.checkpoints("fedavg"))[0] == 1
    consilium([*arguments, str(killed.path), "--resume"])

    assert_same_weights(undisturbed, killed)
    tested = [run.model("fedavg").read_bytes() for run in (undisturbed, killed)]
    assert tested[0] == tested[1]
    assert (killed.path / "report.html").exists()


def test_killed_between_two_steps_and_resumed_gives_the_same_weights(tiny_study, tmp_path, events):
    config = tmp_path / "tiny.toml"
    wanted = tiny_study.config
    write_toml(
        config,
        tiny_study.config_with(
            simulation=Simulation(csv=str(tiny_study.data / "partition.csv")),
            federation=replace(wanted.federation, local_steps=N_STEPS),
            training=replace(wanted.training, checkpoint_every_steps=2, optimizer_state="kept"),
        ),
    )
    arguments = ["simulate", str(config), "--data", str(tiny_study.data), "--out"]

    undisturbed, killed = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "killed")
    log = partial(events, killed.path)
    consilium([*arguments, str(undisturbed.path)])
    state = killed.path / "sites" / "alpha" / "state"
    kill_between_two_steps_of_round(2, [*arguments, str(killed.path)], log, state)
    consilium([*arguments, str(killed.path), "--resume"])

    assert "round 2: goes on after step" in (state / "site.log").read_text()
    assert (
        "round 2: goes on"
        not in (undisturbed.path / "sites" / "alpha" / "state" / "site.log").read_text()
    )
    assert_same_weights(undisturbed, killed)


def assert_same_weights(undisturbed: RunFolder, killed: RunFolder) -> None:
    one = latest_checkpoint(undisturbed.checkpoints("fedavg"))
    other = latest_checkpoint(killed.checkpoints("fedavg"))
    assert one[0] == other[0] == 2
    mine, theirs = one[1]["global"], other[1]["global"]
    assert mine.keys() == theirs.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine)


def consilium(arguments: list[str]) -> None:
    done = subprocess.run(
        [str(CONSILIUM), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr


def kill_when_first_site_finished_round(round_: int, arguments: list[str], log: Log) -> None:
    child = subprocess.Popen([str(CONSILIUM), *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
    while not any(event["round"] == round_ for event in log("SiteTrained")):
        if child.poll() is not None or time.monotonic() > deadline:
            pytest.fail("the run ended before it could be killed")
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not any(event["round"] == round_ for event in log("RoundFinished"))


def kill_between_two_steps_of_round(
    round_: int, arguments: list[str], log: Log, state: Path
) -> None:
    child = subprocess.Popen([str(CONSILIUM), *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
    while not (finished(round_ - 1, log) and 0 < steps_kept(state) < N_STEPS):
        if child.poll() is not None or time.monotonic() > deadline:
            pytest.fail("the run ended before it could be killed")
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert 0 < steps_kept(state) < N_STEPS
    assert not any(event["round"] == round_ for event in log("SiteTrained"))


def finished(round_: int, log: Log) -> bool:
    return any(event["round"] == round_ for event in log("RoundFinished"))


def steps_kept(state: Path) -> int:
    """Return how many steps of its current round a site has kept."""
    found = list(state.glob("runs/*/unfinished/fedavg.safetensors"))
    return len(load_file(found[0])["losses"]) if found else 0
