"""A SuperLink and two SuperNodes on loopback against the in-process carrier: equal weights."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from client.app import app
from common.task import load_task
from server.events import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder, latest_checkpoint
from simulation.grid import InProcessGrid

PROJECT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent
START_TIMEOUT_S, RUN_TIMEOUT_S = 60, 400


@pytest.mark.timeout(RUN_TIMEOUT_S + 120)
def test_real_flower_and_the_in_process_carrier_end_with_the_same_weights(tiny_study, tmp_path):
    real = tmp_path / "real" / "run"
    tiny_study.write_run(real)
    with flower_federation(tiny_study.write_sites(tmp_path / "real"), tmp_path) as start_run:
        start_run(real)

    in_process = RunFolder(tmp_path / "in-process" / "run")
    files = tiny_study.write_sites(tmp_path / "in-process")
    nodes = {number: {"site": str(path)} for number, path in enumerate(files.values(), start=1)}
    run(
        tiny_study.config,
        load_task(tiny_study.config.task),
        FlowerSites(InProcessGrid(app, nodes)),
        in_process,
        EventLog(in_process.events),
        device="test",
    )

    assert_equal_state(RunFolder(real), in_process, round_=2)


def assert_equal_state(one: RunFolder, other: RunFolder, *, round_: int) -> None:
    first = latest_checkpoint(one.checkpoints("fedavg"))
    second = latest_checkpoint(other.checkpoints("fedavg"))
    assert first is not None
    assert second is not None
    assert first[0] == second[0] == round_
    assert first[1]["global"].keys() == second[1]["global"].keys()
    for name, tensor in first[1]["global"].items():
        np.testing.assert_array_equal(tensor, second[1]["global"][name], err_msg=name)


@contextmanager
def flower_federation(sites: dict[str, Path], tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Start SuperLink and SuperNodes; yields a function that runs the app to its end."""
    home = tmp_path / "flower-home"
    port = free_port()
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
        f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    env = {
        **os.environ,
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",  # SuperLink starts its own helpers
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    with ExitStack() as stack:
        where = ["--host", "127.0.0.1", "--port", str(port)]
        stack.enter_context(process(["flower-superlink", "--insecure", *where], env, home / "link"))
        wait_until(lambda: answers(port), "the SuperLink answers")
        for name, path in sites.items():
            command = [
                "flower-supernode",
                "--insecure",
                "--superlink",
                f"127.0.0.1:{port}",
                "--host",
                "127.0.0.1",
                "--port",
                str(free_port()),
                "--node-config",
                f'site="{path}"',
            ]
            stack.enter_context(process(command, env, home / name))
        yield lambda folder: run_app(folder, env, home)


def run_app(folder: Path, env: dict[str, str], home: Path) -> None:
    flwr = str(BINARIES / "flwr")
    config = f'run-dir="{folder}"'
    started = subprocess.run(
        [flwr, "run", str(PROJECT), "here", "--run-config", config, "--format", "json"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    finished = lambda: "RunFinished" in read(folder / "events.jsonl")  # noqa: E731
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not finished():
        if time.monotonic() > deadline:
            logs = "\n".join(f"== {log}\n{read(log)[-3000:]}" for log in home.glob("*.log"))
            pytest.fail(f"the run did not finish\n{read(folder / 'events.jsonl')}\n{logs}")
        time.sleep(1)


@contextmanager
def process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Run a program in its own process group and end the whole group afterwards."""
    with log.with_suffix(".log").open("w") as output:
        child = subprocess.Popen(
            [str(BINARIES / command[0]), *command[1:]],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"within {START_TIMEOUT_S} s: expected that {what}")
        time.sleep(0.2)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
