"""A federation as hospitals have it: kits, TLS, one command per role, a network that can fail.

The traffic of the sites goes through `Network`, which ends TLS with the coordinator's own key,
writes down every byte that sites send, and can be cut. It reaches the coordinator from an address
that is not an administrator's, as sites do.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.codec import write_toml
from simulation.phantoms import PhantomSite, PhantomStudy, partition_of, write_study

BINARIES = Path(sys.executable).parent
COORDINATOR_BINARIES = Path(os.environ.get("CONSILIUM_COORDINATOR_BINARIES", BINARIES))
SITE_BINARIES = Path(os.environ.get("CONSILIUM_SITE_BINARIES", BINARIES))
"""Of environments of their own, made from the wheel; by hand, for they take minutes to make."""
WATCH = """
import os, sys
FILE = {file!r}
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
def watch(event, arguments):
    if event in WATCHED:
        line = f"{{event}} {{arguments[-1] if event == 'socket.connect' else arguments[0]}}\\n"
        handle = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, line.encode())
        os.close(handle)
sys.addaudithook(watch)
"""
"""A `sitecustomize` that notes every attempt of every Python process to reach somebody."""
SITES_DIAL, COORDINATOR_LISTENS, SITES_COME_FROM = "127.0.0.2", "127.0.0.1", "127.0.0.3"
START_TIMEOUT_S, RUN_TIMEOUT_S = 120, 420
SITES = ("alpha", "beta", "gamma")


class Network:
    """Carries bytes between the sites and the coordinator; remembers what the sites sent."""

    def __init__(self, port: int, kit: Path) -> None:
        """Listen where sites dial.

        Args:
            port: at which sites dial `SITES_DIAL` and the coordinator listens.
            kit: of the coordinator, whose key ends TLS here.
        """
        self.sent: list[bytearray] = []
        self._port, self._kit = port, kit
        self._up = True
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def cut(self) -> None:
        """End all connections and take no new ones."""
        self._up = False
        self._loop.call_soon_threadsafe(self._close_all)

    def mend(self) -> None:
        """Take connections again."""
        self._up = True

    def end(self) -> None:
        """Stop listening."""
        self.cut()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def requests(self) -> list[tuple[str, bytes]]:
        """Return path and body of every whole request that sites sent, connection by connection."""
        return [request for stream in self.sent for request in parsed(bytes(stream))]

    def _run(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._serve(ready))
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self._kit / "coordinator.crt", self._kit / "coordinator.key")
        self._client = ssl.create_default_context(cafile=str(self._kit / "ca.crt"))
        listening = await asyncio.start_server(self._carry, SITES_DIAL, self._port, ssl=server)
        async with listening:
            ready.set()
            await self._stop.wait()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._up:
            writer.transport.abort()
            return
        try:
            from_them, to_them = await asyncio.open_connection(
                COORDINATOR_LISTENS, self._port, ssl=self._client, local_addr=(SITES_COME_FROM, 0)
            )
        except OSError:  # the coordinator is not there
            writer.transport.abort()
            return
        self._open |= {writer, to_them}
        seen = bytearray()
        self.sent.append(seen)
        await asyncio.gather(self._pump(reader, to_them, seen), self._pump(from_them, writer, None))
        self._open -= {writer, to_them}

    @staticmethod
    async def _pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: bytearray | None
    ) -> None:
        try:
            while data := await reader.read(2**16):
                if seen is not None:
                    seen += data
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort() if seen is None else writer.close()

    def _close_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()


def parsed(stream: bytes) -> list[tuple[str, bytes]]:
    """Return (path, body) of the requests in what one connection carried."""
    found = []
    while stream:
        head, separator, rest = stream.partition(b"\r\n\r\n")
        if not separator:
            break
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        n_bytes = int(length.group(1)) if length else 0
        if len(rest) < n_bytes:
            break
        found.append((head.split(b" ")[1].decode(), rest[:n_bytes]))
        stream = rest[n_bytes:]
    return found


class Hospitals:
    """Kits, data and running programs of a federation with three hospitals."""

    def __init__(self, home: Path) -> None:
        """Provision; nothing runs yet."""
        self.home, self.kits = home, home / "kits"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.port = free_port()
        self.network: Network | None = None
        home.mkdir(parents=True, exist_ok=True)
        self.attempts = home / "attempts.txt"
        (home / "watch").mkdir()
        watch = WATCH.format(file=str(self.attempts))
        (home / "watch" / "sitecustomize.py").write_text(watch)
        paths = [str(home / "watch"), os.environ.get("PYTHONPATH", "")]
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }
        (home / "federation.toml").write_text(
            f'name = "study"\naddress = "{SITES_DIAL}:{self.port}"\n'
            f'names = ["{COORDINATOR_LISTENS}"]\nlisten = "{COORDINATOR_LISTENS}"\n'
            f"sites = {json.dumps(SITES)}\nvalid_days = 30\nmax_message_mb = 64\n"
            'task = "brats-2021"\n'
        )
        self.call("provision", home / "federation.toml", "-o", self.kits)

    @property
    def coordinator(self) -> Path:
        """The coordinator's kit."""
        return self.kits / "coordinator"

    def connect(self) -> Network:
        """Build the network between sites and coordinator."""
        self.network = Network(self.port, self.coordinator)
        return self.network

    def fill_in(self, site: str, **fields: object) -> None:
        """Fill in a site's own file, as its staff does."""
        write_toml(self.kits / site / "site.toml", {"name": site, "state": "state", **fields})

    def call(self, *arguments: object, expect: int = 0) -> str:
        """Run one command to its end; return what it printed, both streams."""
        done = subprocess.run(
            [binaries_of(str(arguments[0])) / "consilium", *map(str, arguments)],
            env=self.env,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=START_TIMEOUT_S,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def start(self, role: str, name: str) -> None:
        """Start the coordinator's or a site's one command, in a process group of its own."""
        with (self.home / f"{name}.out").open("a") as output:
            self.running[name] = subprocess.Popen(
                [binaries_of(role) / "consilium", role, "start", self.kits / name],
                env=self.env,
                cwd=self.home,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        """Return what a started command printed so far."""
        return (self.home / f"{name}.out").read_text()

    def kill(self, name: str) -> None:
        """End a started command with SIGKILL; its children see to themselves."""
        child = self.running.pop(name)
        child.send_signal(signal.SIGKILL)
        child.wait()

    def kill_part(self, name: str, part: str) -> None:
        """End those of a command's children whose command line holds `part` with SIGKILL."""
        found = [pid for pid in children(self.running[name].pid) if part in command_of(pid)]
        assert found, f"expected a process of {name} with {part!r} in its command line"
        for pid in found:
            os.kill(pid, signal.SIGKILL)

    def cut_power(self, name: str) -> None:
        """End a started command and everything below it at once, as a power cut does."""
        everything = [self.running[name].pid, *children(self.running[name].pid)]
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)  # nobody tidies up
        for pid in everything:
            os.kill(pid, signal.SIGKILL)
        self.running.pop(name).wait()

    def end(self) -> None:
        """End everything that still runs."""
        for child in self.running.values():
            child.terminate()
        for child in self.running.values():
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if self.network is not None:
            self.network.end()

    def logs(self) -> str:
        """Return the ends of everything that was printed or logged, for a failed test."""
        files = [*self.home.glob("*.out"), *self.kits.glob("*/state/**/*.log")]
        return "\n".join(f"== {f}\n{f.read_text(errors='replace')[-4000:]}" for f in files)

    def up(self) -> bool:
        """Return whether the coordinator says that it is well."""
        try:
            self.call("coordinator", "status", "--kit", self.coordinator)
        except AssertionError:
            return False
        return True

    def start_all(self) -> None:
        """Start the coordinator, then the sites, and wait until all are connected."""
        self.start("coordinator", "coordinator")
        self.wait_until(self.up, "the coordinator is well", START_TIMEOUT_S)
        for site in SITES:
            self.start("site", site)

    def status(self) -> dict[str, Any]:
        """Return what the coordinator says of itself."""
        said = self.call("coordinator", "status", "--kit", self.coordinator, "--json")
        return json.loads(said)

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Wait for a condition; fail with all logs."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"within {timeout_s} s: expected that {what}\n{self.logs()}")
            time.sleep(0.5)


def binaries_of(command: str) -> Path:
    """Return the environment whose `consilium` runs a command."""
    return SITE_BINARIES if command == "site" else COORDINATOR_BINARIES


PATIENT = "Mustermann_Erika"
CASES = {"alpha": 4, "beta": 3, "gamma": 3}


@pytest.fixture(scope="module")
def archives(
    tmp_path_factory: pytest.TempPathFactory, phantom_site: Callable[[str, int], PhantomSite]
) -> dict[str, Path]:
    """Return each hospital's own folder; a patient's name is in every file name."""
    drawn = tmp_path_factory.mktemp("drawn")
    study = PhantomStudy(
        seed=3,
        field_of_view_mm=(140.0, 168.0, 144.0),
        sites=tuple(phantom_site(name, n) for name, n in CASES.items()),
    )
    write_study(study, drawn)
    home = tmp_path_factory.mktemp(f"archive_{PATIENT}")
    for site, cases in partition_of(study).sites.items():
        for case in cases:
            new = home / site / f"{PATIENT}_{case}"
            shutil.copytree(drawn / case, new)
            for path in list(new.iterdir()):
                path.rename(new / f"{PATIENT}_{path.name}")
    return {site: home / site for site in CASES}


@pytest.fixture
def filled(hospitals: "Hospitals", archives: dict[str, Path]) -> "Hospitals":
    """Return the federation after every hospital filled in its own file."""
    policy = {
        "metrics": "cases",
        "validation_means": True,
        "pictures": False,
        "fingerprint": "exact",
        "tasks": ["brats-2021"],
    }
    for site, folder in archives.items():
        hospitals.fill_in(site, data=str(folder), policy=policy)
    return hospitals


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Hospitals]:
    """Return a provisioned federation; whatever was started ends with the test."""
    federation = Hospitals(tmp_path / "federation")
    try:
        yield federation
    finally:
        federation.end()
        shutil.rmtree(federation.kits, ignore_errors=True)


def children(pid: int) -> list[int]:
    """Return the processes below one, all generations."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        below.setdefault(parent, []).append(int(stat.parent.name))
    direct = below.get(pid, [])
    return direct + [grandchild for child in direct for grandchild in children(child)]


def command_of(pid: int) -> str:
    """Return a process's command line, or nothing if it ended."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((COORDINATOR_LISTENS, 0))
        return int(probe.getsockname()[1])
