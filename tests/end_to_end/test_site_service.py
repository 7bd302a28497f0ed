"""A hospital's service against a real SuperLink with TLS and authentication, on loopback."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

PROJECT = Path(__file__).parents[2]
BINARIES = Path(sys.executable).parent
TIMEOUT_S = 120  # on a loaded machine; idle, nothing takes half of it
ASKING = """
import json, os
from pathlib import Path
from flwr.app import Message
from flwr.serverapp import ServerApp
from common.messages import MeasureTask
from common.task import load_task
from common.wire import to_content

app = ServerApp()


@app.main()
def main(grid, context):
    (node,) = grid.get_node_ids()
    task = MeasureTask(run="run-1", task=load_task("brats-2021"))
    message = Message(to_content(task, None), dst_node_id=node, message_type="query.measure")
    (reply,) = grid.send_and_receive([message], timeout=50)
    error = [reply.error.code, reply.error.reason] if reply.has_error() else None
    Path(os.environ["ANSWERS"]).write_text(json.dumps(error))
"""
BUNDLE = """
[project]
name = "consilium"
version = "0.1.0"
[tool.flwr.app]
publisher = "consilium"
fab-include = [INCLUDE]
[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"
"""


def kits() -> ModuleType:
    """Return what makes kits for the service's own tests."""
    path = PROJECT / "tests/client/service/conftest.py"
    spec = importlib.util.spec_from_file_location("kits_for_tests", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kits_for_tests"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


class Service:
    """A SuperLink with a hello, and one site's kit."""

    def __init__(self, home: Path, data: Path, port: int) -> None:
        self.home, self.port = home, port
        self.answer, self.answers = home / "answer.json", home / "answers.json"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        made = kits()
        authority = made.Authority("federation A")
        self.certificate = authority.server_files(home / "server")
        (home / "ca.crt").write_bytes(authority.pem)
        study = type("Study", (), {"data": data})
        self.kit = made.make_kit.__wrapped__(home, authority, study)(port)
        self.knows = json.dumps([200, made.hello_to(self.kit.kit)])
        self.answer.write_text(self.knows)
        self._write_flower_config()
        self._write_asking_server()
        self.env = {
            **os.environ,
            "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(home / "flower"),
            "ANSWERS": str(self.answers),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "PYTHONPATH": f"{home / 'asking'}{os.pathsep}{PROJECT}",
        }

    @property
    def log(self) -> str:
        """What the site has logged."""
        path = self.kit.folder / "state" / "site.log"
        return path.read_text() if path.exists() else ""

    def start_link(self) -> None:
        """Start the SuperLink; the same database as before."""
        certificate, key = map(str, self.certificate)
        command = [sys.executable, str(Path(__file__).parent / "link_with_hello.py")]
        command += [str(self.answer), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--ssl-ca-certfile", str(self.home / "ca.crt"), "--ssl-certfile", certificate]
        command += ["--ssl-keyfile", key, "--enable-supernode-auth"]
        self._start("link", [*command, "--database", str(self.home / "state.db")], self.env)
        until(self._link_answers, "the SuperLink answers")

    def register(self) -> None:
        """Make the site's key known."""
        private = load_ssh_private_key((self.kit.folder / "site.key").read_bytes(), None)
        public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (self.home / "node.pub").write_bytes(public)
        self.flwr("supernode", "register", str(self.home / "node.pub"), "here", "--name", "one")

    def start_site(self) -> None:
        """Start the site as a hospital does."""
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", "consilium", "site", "start", str(self.kit.folder)]
        self._start("site", [*command, "--longest-wait-s", "2"], env)

    def run_bundle(self, **files: str) -> object:
        """Run a bundle; return the error that the site answered with, or None."""
        self.answers.unlink(missing_ok=True)
        folder = self.home / f"app-{len(files)}"
        folder.mkdir()
        included = ", ".join(f'"{name}"' for name in ["README.md", *files])
        (folder / "pyproject.toml").write_text(BUNDLE.replace("INCLUDE", included))
        for name, text in {"README.md": "words", **files}.items():
            (folder / name).write_text(text)
        self.flwr("run", str(folder), "here", "--format", "json")
        until(self.answers.exists, "the site answers")
        return json.loads(self.answers.read_text())

    def flwr(self, *arguments: str) -> None:
        """Run a command of Flower's."""
        command = [str(BINARIES / "flwr"), *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def end(self) -> None:
        """End everything that still runs."""
        for child in reversed(self.running.values()):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                try:
                    child.wait(25)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()

    def _start(self, name: str, command: list[str], env: dict[str, str]) -> None:
        with (self.home / f"{name}.out").open("ab") as output:
            self.running[name] = subprocess.Popen(
                command,
                env=env,
                cwd=self.home,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _link_answers(self) -> bool:
        return b"Uvicorn running on https" in (self.home / "link.out").read_bytes()

    def _write_flower_config(self) -> None:
        (self.home / "flower").mkdir()
        (self.home / "flower" / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{self.home / "ca.crt"}"\n'
        )

    def _write_asking_server(self) -> None:
        """Write a `server.app` of the coordinator's side that asks one question."""
        (self.home / "asking" / "server").mkdir(parents=True)
        (self.home / "asking" / "server" / "__init__.py").touch()
        (self.home / "asking" / "server" / "app.py").write_text(ASKING)


@pytest.fixture
def service(tmp_path, tiny_study, free_loopback_port) -> Iterator[Service]:
    made = Service(tmp_path, tiny_study.data, free_loopback_port)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def free_loopback_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str, timeout_s: float = TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"within {timeout_s} s: expected that {what}"
        time.sleep(0.2)


def processes_of(kit: Path) -> dict[int, str]:
    """Return the processes of a kit's service, by number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(kit) in command and state != "Z":
            found[int(folder.name)] = command
    return found


def one_of(kit: Path, module: str) -> int:
    found = [number for number, command in processes_of(kit).items() if module in command]
    return found[0] if found else 0


def test_a_site_answers_messages_and_refuses_bundles_with_code(service):
    service.start_link()
    service.register()
    service.start_site()
    until(lambda: "connected to" in service.log, "the site connects")

    assert service.run_bundle() is None
    assert "query.measure received" in service.log
    assert "query.measure answered" in service.log

    planted = "from pathlib import Path\nPath('planted').touch()\n"
    assert service.run_bundle(**{"torch.py": planted}) == [4100, "policy:bundle"]
    assert "refused: its bundle: expected no file but README.md" in service.log
    flower = service.kit.folder / "state" / "service" / "flower"
    assert [path.name for path in flower.rglob("*.py")] == []

    stopped = subprocess.run(
        [sys.executable, "-m", "consilium", "site", "stop", str(service.kit.folder)],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (stopped.returncode, stopped.stdout) == (0, "the site has stopped\n"), stopped.stderr
    assert service.running["site"].wait(10) == 0
    assert processes_of(service.kit.folder) == {}
    shown = (service.home / "site.out").read_text()
    assert "working: describe the data\n" in shown
    assert "answered: describe the data\n" in shown


def test_a_site_comes_back_after_every_death_and_leaves_nothing_behind(service):
    service.start_link()
    service.register()
    service.start_site()
    until(lambda: "connected to" in service.log, "the site connects")
    kit = service.kit.folder

    first = one_of(kit, "client.service.supernode")
    os.kill(first, signal.SIGKILL)
    until(lambda: "Flower ended (signal 9" in service.log, "the death is told")
    until(lambda: one_of(kit, "client.service.supernode") not in {0, first}, "Flower is back")
    until(lambda: service.log.count("connected to") == 2, "the site connects again")

    os.kill(service.running["site"].pid, signal.SIGKILL)
    service.running["site"].wait()
    until(lambda: processes_of(kit) == {}, "nothing outlives the site")


def test_a_site_waits_for_its_coordinator_and_says_why(service):
    service.start_site()
    until(lambda: "refuses connections" in service.log, "it says so")
    service.answer.write_text(json.dumps([403, {"reason": "revoked", "says": ""}]))
    service.start_link()
    until(lambda: "the coordinator has revoked this site's key" in service.log, "it says so")
    assert one_of(service.kit.folder, "client.service.supernode") == 0
    service.answer.write_text(service.knows)
    service.register()
    until(lambda: "connected to" in service.log, "the site connects")
    service.running["site"].send_signal(signal.SIGINT)
    assert service.running["site"].wait(30) == 130


def test_what_is_too_large_is_refused_and_nobody_else_gets_at_a_task(service):
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.runtime import RuntimeHttpClient

    service.kit.write(max_message_mb=0.0001)
    service.start_link()
    service.register()
    service.start_site()
    until(lambda: "connected to" in service.log, "the site connects")
    command = processes_of(service.kit.folder)[
        one_of(service.kit.folder, "client.service.executor")
    ].split()
    address = next(part for part in command if part.startswith("127.0.0.1:"))
    client = RuntimeHttpClient.from_server_address(
        address, insecure=True, root_certificates=None, interceptors=[]
    )
    with pytest.raises(Exception, match="401"), client:
        client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
    secret = service.kit.folder / "state" / "service" / "executor.secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert not [c for c in processes_of(service.kit.folder).values() if "--token" in c]
    assert service.run_bundle() == [4100, "policy:size"]
    assert "refused: its message is larger than the kit allows" in service.log

    executor = one_of(service.kit.folder, "client.service.executor")
    os.kill(executor, signal.SIGKILL)
    until(
        lambda: one_of(service.kit.folder, "client.service.executor") not in {0, executor},
        "it is back",
    )


def test_a_site_stops_when_somebody_else_answers_for_the_coordinator(service):
    other = kits().Authority("federation B")
    service.certificate = other.server_files(service.home / "other")
    (service.home / "ca.crt").write_bytes(other.pem)  # the SuperLink's own
    service.start_link()
    service.start_site()
    assert service.running["site"].wait(TIMEOUT_S) == 2
    assert "a certificate of another authority" in service.log
