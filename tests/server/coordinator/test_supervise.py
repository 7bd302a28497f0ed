"""`consilium coordinator start` with real processes, whose parts are killed one after the other."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.coordinator.status import read_status

PROJECT = Path(__file__).parents[3]
REAL_PROCESSES = pytest.mark.timeout(180)


class Coordinator:
    """The command line of a coordinator, in a process that can be killed."""

    def __init__(self, kit: object, home: Path) -> None:
        self.kit, self.home = kit, home
        self.process: subprocess.Popen[bytes] | None = None
        self.env = {**os.environ, "PYTHONPATH": str(PROJECT), "CONSILIUM_KIT": str(kit.folder.path)}

    def start(self) -> None:
        with (self.home / "coordinator.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "consilium", "coordinator", "start"],
                env=self.env,
                cwd=PROJECT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "consilium", "coordinator", *map(str, arguments)],
            env=self.env,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def status(self) -> dict:
        return json.loads(self.call("status", "--json").stdout)

    def pids(self) -> dict[str, int]:
        state = json.loads(self.kit.folder.supervisor.read_text())
        return {child["name"]: child.get("pid", 0) for child in state["children"]}

    def said(self) -> str:
        return (self.home / "coordinator.log").read_text()

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            logs = [self.home / "coordinator.log", *sorted(self.kit.folder.logs.glob("*.log"))]
            texts = "\n".join(f"== {log}\n{log.read_text()[-3000:]}" for log in logs)
            assert time.monotonic() < deadline, f"{what}\n{texts}"
            time.sleep(0.3)

    def wait_until_healthy(self) -> None:
        folder = self.kit.folder
        well = lambda: read_status(folder, datetime.now(UTC)).healthy  # noqa: E731
        self.wait(well, "expected a healthy coordinator")
        assert self.call("status").returncode == 0

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


@pytest.fixture
def coordinator(make_kit, tmp_path: Path) -> Iterator[Coordinator]:
    made = Coordinator(make_kit(tmp_path / "kit"), tmp_path)
    try:
        yield made
    finally:
        made.end()


def programs_with(word: str) -> list[str]:
    """Return the command lines that hold a word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_text()
        except OSError:  # ended meanwhile
            continue
        if word in command:
            found.append(command)
    return found


def is_alive(pid: int) -> bool:
    try:
        return (
            "Z" not in (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
        )
    except OSError:
        return False


@REAL_PROCESSES
def test_every_part_that_is_killed_comes_back_and_the_end_leaves_nothing(coordinator):
    coordinator.start()
    coordinator.wait_until_healthy()
    coordinator.wait(lambda: "site alpha was registered" in coordinator.said(), "sites registered")
    assert "site revoked was" not in coordinator.said()

    for name in ("superlink", "executor"):
        before = coordinator.pids()
        os.kill(before[name], signal.SIGKILL)
        coordinator.wait(
            lambda name=name, before=before: coordinator.pids()[name] not in {0, before[name]},
            f"expected another {name}",
        )
    coordinator.wait_until_healthy()
    assert {site["connection"] for site in coordinator.status()["sites"]} == {"never seen"}

    orphans = coordinator.pids()
    coordinator.process.kill()  # and not its children
    coordinator.process.wait()
    coordinator.wait(lambda: not any(map(is_alive, orphans.values())), "expected no orphans")
    assert coordinator.call("status").returncode == 1

    coordinator.start()
    coordinator.wait_until_healthy()
    children = coordinator.pids()
    stopped = coordinator.call("stop")
    assert stopped.returncode == 0, stopped.stderr
    coordinator.process.wait(30)
    assert coordinator.process.returncode == 0
    assert not any(map(is_alive, children.values()))
    assert coordinator.call("status").returncode == 1


@REAL_PROCESSES
def test_one_kit_has_one_coordinator(coordinator):
    coordinator.start()
    coordinator.wait(coordinator.kit.folder.supervisor.exists, "expected a supervisor")
    second = coordinator.call("start")
    assert second.returncode == 2
    assert second.stderr == (
        f"consilium: {coordinator.kit.folder.path}: its coordinator is running already\n"
    )


@REAL_PROCESSES
def test_a_wanted_run_starts_comes_back_with_the_executor_and_stops(coordinator, tiny_study):
    run = coordinator.home / "study"
    tiny_study.write_run(run)
    config = run / "config.toml"
    added = coordinator.call("run", config, "--out", run)
    assert added.returncode == 0, added.stderr
    coordinator.start()
    events = run / "events.jsonl"
    started = '"event": "RunStarted"'
    coordinator.wait(lambda: events.exists() and started in events.read_text(), "run started", 90)

    os.kill(coordinator.pids()["executor"], signal.SIGKILL)
    coordinator.wait(lambda: events.read_text().count(started) == 2, "run started again", 90)
    found = coordinator.status()["runs"][0]
    assert (found["state"], found["round"]) == ("wanted", 0)
    assert found["waits_for"].startswith("sites to connect: 2 are needed")

    assert coordinator.call("stop", "--run", "study").returncode == 0
    coordinator.wait(lambda: "was stopped" in coordinator.said().splitlines()[-1], "run stopped")
    assert coordinator.status()["runs"][0]["state"] == "stopped"
    coordinator.end()
    coordinator.wait(lambda: programs_with(f":{coordinator.kit.port}") == [], "nothing is left")


@REAL_PROCESSES
def test_a_run_that_cannot_begin_is_given_up_with_its_reason(coordinator, tiny_study):
    run = coordinator.home / "study"
    tiny_study.write_run(run)
    assert coordinator.call("run", run / "config.toml", "--out", run).returncode == 0
    (run / "events.jsonl").write_text('{"time": "2026-01-01T00:00:00+00:00", "event": "Unknown"}\n')
    coordinator.start()
    coordinator.wait(lambda: "given up" in coordinator.said(), "expected an end of the attempts")
    found = coordinator.status()
    assert "known event" in " ".join(found["trouble"])
