"""A simulation that is killed in the middle of a round and resumed ends as an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.codec import write_toml
from common.config import Simulation
from server.run_folder import RunFolder, latest_checkpoint

CONSILIUM = Path(sys.executable).with_name("consilium")
TIMEOUT_S = 300


def test_killed_in_the_middle_of_a_round_and_resumed_gives_the_same_weights(tiny_study, tmp_path):
    config = tmp_path / "tiny.toml"
    partition = Simulation(csv=str(tiny_study.data / "partition.csv"))
    write_toml(config, tiny_study.config_with(simulation=partition))
    arguments = ["simulate", str(config), "--data", str(tiny_study.data), "--out"]

    undisturbed, killed = RunFolder(tmp_path / "undisturbed"), RunFolder(tmp_path / "killed")
    consilium([*arguments, str(undisturbed.path)])
    kill_when_first_site_finished_round(2, [*arguments, str(killed.path)], killed.events)
    assert latest_checkpoint(killed.checkpoints("fedavg"))[0] == 1
    consilium([*arguments, str(killed.path), "--resume"])

    one = latest_checkpoint(undisturbed.checkpoints("fedavg"))
    other = latest_checkpoint(killed.checkpoints("fedavg"))
    assert one[0] == other[0] == 2
    mine, theirs = one[1]["global"], other[1]["global"]
    assert mine.keys() == theirs.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine)
    assert (killed.path / "report.html").exists()


def consilium(arguments: list[str]) -> None:
    done = subprocess.run(
        [str(CONSILIUM), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr


def kill_when_first_site_finished_round(round_: int, arguments: list[str], log: Path) -> None:
    child = subprocess.Popen([str(CONSILIUM), *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT_S
    while not any(e["event"] == "SiteTrained" and e["round"] == round_ for e in events(log)):
        if child.poll() is not None or time.monotonic() > deadline:
            pytest.fail("the run ended before it could be killed")
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not any(e["event"] == "RoundFinished" and e["round"] == round_ for e in events(log))


def events(log: Path) -> list[dict[str, object]]:
    if not log.exists():
        return []
    found = []
    for line in log.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
