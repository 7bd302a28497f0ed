"""A federation of real Flower processes on loopback, whose parts can be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent
START_TIMEOUT_S, RUN_TIMEOUT_S = 60, 400


class FlowerFederation:
    """A SuperLink and SuperNodes, each the head of a process group of its own."""

    def __init__(self, home: Path) -> None:
        """Start the SuperLink."""
        self.home, self.port, self.sites = home, free_port(), {}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        )
        self.env = {
            **os.environ,
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",  # SuperLink starts helpers
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        }
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        self._start("link", ["flower-superlink", "--insecure", *where])
        wait_until(lambda: answers(self.port), "the SuperLink answers", START_TIMEOUT_S)

    def start(self, site: str, path: Path) -> None:
        """Start a site's SuperNode."""
        command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{self.port}"]
        own = ["--host", "127.0.0.1", "--port", str(free_port())]
        self._start(site, [*command, *own, "--node-config", f'site="{path}"'])

    def wait_for_sites(self, n: int) -> None:
        """Wait until so many SuperNodes have told the SuperLink that they are there."""
        log = self.home / "link.log"
        there = "[Fleet.ActivateNode] Activated"
        wait_until(lambda: log.read_text().count(there) >= n, f"{n} sites come", START_TIMEOUT_S)

    def kill(self, name: str) -> None:
        """End a process and its children at once."""
        child = self.running.pop(name)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def kill_server_app(self) -> None:
        """End the process that runs the experiment, and not the SuperLink."""
        killed = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().decode()
            except OSError:  # ended meanwhile
                continue
            if "flwr-serverapp" in command and f":{self.port}" in command:
                os.kill(int(folder.name), signal.SIGKILL)
                killed.append(command)
        assert killed, "expected a running ServerApp"

    def start_run(self, folder: Path) -> None:
        """Start the experiment in a run directory, or resume it."""
        command = ["run", str(PROJECT), "here", "--run-config", f'run-dir="{folder}"']
        started = subprocess.run(
            [str(BINARIES / "flwr"), *command, "--format", "json"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert started.returncode == 0, started.stdout + started.stderr

    def wait_for_event(self, folder: Path, times: int = 1, **fields: object) -> None:
        """Wait until so many events with these fields are in a run's log."""

        def found() -> bool:
            return sum(fields.items() <= e.items() for e in events_of(folder)) >= times

        try:
            wait_until(found, f"{fields} happens", RUN_TIMEOUT_S)
        except AssertionError as error:
            logs = [f"== {log}\n{log.read_text()[-3000:]}" for log in self.home.glob("*.log")]
            pytest.fail("\n".join([str(error), *map(str, events_of(folder)), *logs]))

    def run_to_its_end(self, folder: Path) -> None:
        """Start the experiment and wait until everything is written."""
        self.start_run(folder)
        self.wait_for_event(folder, event="RunFinished")

    def end(self) -> None:
        """End everything that still runs."""
        for child in reversed(self.running.values()):
            os.killpg(child.pid, signal.SIGTERM)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def _start(self, name: str, command: list[str]) -> None:
        with (self.home / f"{name}.log").open("a") as output:
            self.running[name] = subprocess.Popen(
                [str(BINARIES / command[0]), *command[1:]],
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowerFederation]:
    """Return a running SuperLink without sites; everything ends with the module."""
    federation = FlowerFederation(tmp_path_factory.mktemp("flower") / "home")
    try:
        yield federation
    finally:
        federation.end()


@pytest.fixture(scope="session")
def events() -> Callable[..., list[dict[str, Any]]]:
    """Return what reads a run's events: of a folder, all or those of one kind."""
    return events_of


def events_of(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Return the events of a run, without a line that is being written."""
    path = folder / "events.jsonl"
    text = path.read_text() if path.exists() else ""
    whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [event for event in whole if kind in {None, event["event"]}]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"within {timeout_s} s: expected that {what}"
        time.sleep(0.2)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether somebody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
