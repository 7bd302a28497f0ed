"""`consilium coordinator start`: SuperLink, executor, sites and runs, kept going until it is ended.

All that is to be remembered lies on the disk, so that the same command brings everything back after
any of its parts was killed, itself included, and after a reboot.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO

from common.codec import read_json, record, write_json
from common.console import say
from common.errors import ConfigError, ConsiliumError, FederationError
from common.files import locked, make_folder
from common.kit import Instant
from server.coordinator.children import Child, ChildState, close_log, rotating_log
from server.coordinator.control import control_of
from server.coordinator.keep_runs import RunKeeper
from server.coordinator.kit_folder import KitFolder
from server.node_names import write_names

TICK_S = 1.0
RUNS_S = 3.0  # between looks at the runs
STARTING_S = 30.0  # before a SuperLink that does not answer is worth a line
SUPERLINK, EXECUTOR = "superlink", "executor"


@record
class SupervisorState:
    """`supervisor.json`: true only while the lock beside it is held."""

    pid: int
    started: Instant
    children: tuple[ChildState, ...]


@contextmanager
def held(folder: KitFolder) -> Iterator[None]:
    """Hold a kit for this process; the system lets go of it however the process ends.

    Raises:
        ConfigError: when another process holds it.
    """
    make_folder(folder.state)
    folder.state.chmod(0o700)  # database and logs say who takes part
    with folder.lock.open("w") as file:
        if not any(_taken(file) for _ in range(5)):  # a status may be looking just now
            raise ConfigError(f"{folder.path}: its coordinator is running already")
        yield


def _taken(file: IO[str]) -> bool:
    if taken := locked(file):
        return taken
    time.sleep(0.1)
    return False


def running(folder: KitFolder) -> SupervisorState | None:
    """Return the supervisor of a kit, or None when none is running."""
    if not folder.lock.exists():
        return None
    with folder.lock.open("r") as file:
        if locked(file):
            return None
    try:
        return read_json(SupervisorState, folder.supervisor)
    except ConfigError:  # it has only just begun
        return None


def supervise(folder: KitFolder) -> None:
    """Keep a coordinator going until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: for a kit that is not whole, or whose coordinator is running already.
    """
    folder.read()
    with held(folder):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        log = rotating_log(folder.logs / "supervisor.log", "consilium.supervisor")

        def tell(text: str) -> None:
            say(text)
            log.info("%s %s", datetime.now(UTC).isoformat(timespec="seconds"), text)

        supervisor = _Supervisor(folder, tell)
        try:
            while not stop.wait(TICK_S):
                supervisor.tend()
        finally:
            tell("ending: the same command goes on from here")
            supervisor.end()
            close_log(log)


@dataclass
class _Supervisor:
    """Everything that one `start` looks after."""

    folder: KitFolder
    tell: Callable[[str], None]
    _children: tuple[Child, ...] = ()
    _started: str = ""
    _written: SupervisorState | None = None
    _registered: tuple[object, ...] = ()
    _next_runs: float = 0.0
    _last_trouble: str = ""
    _trouble_since: float | None = None
    _keeper: RunKeeper = field(init=False)

    def __post_init__(self) -> None:
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._keeper = RunKeeper(self.folder.runs, self.tell, time.monotonic)
        self._children = tuple(
            Child(
                name,
                f"server.coordinator.{name}",
                self.folder.path,
                self.folder.logs,
                time.monotonic,
            )
            for name in (SUPERLINK, EXECUTOR)
        )

    def tend(self) -> None:
        """Look after the programs, then after sites and runs."""
        for child in self._children:
            if line := child.tend():
                self.tell(line)
                if child.name == EXECUTOR:
                    self._keeper.forget_executor()
        self._write()
        if all(child.state.pid is not None for child in self._children) and (
            time.monotonic() >= self._next_runs
        ):
            self._next_runs = time.monotonic() + RUNS_S
            self._tend_federation()

    def end(self) -> None:
        """End the programs; the executor first, so that no program of a run loses its SuperLink."""
        for child in reversed(self._children):
            child.end()
            self.tell(f"{child.name} ended")
        self.folder.supervisor.unlink(missing_ok=True)
        self.folder.health.unlink(missing_ok=True)

    def _tend_federation(self) -> None:
        try:
            with control_of(self.folder) as control:
                if self._registered != (wanted := self._stamp()):
                    for line in control.register(self.folder.read()):
                        self.tell(line)
                    write_names(self.folder.nodes, {node.id: node.name for node in control.nodes()})
                    self._registered = wanted
                self._keeper.tend(control)
        except FederationError as error:
            self._trouble(str(error), patience_s=STARTING_S)
        except (ConsiliumError, OSError) as error:
            self._trouble(f"{error}; nothing of the runs is changed before that is mended")
        else:
            self._last_trouble, self._trouble_since = "", None

    def _trouble(self, text: str, *, patience_s: float = 0.0) -> None:
        """Tell of trouble once, when it has lasted."""
        now = time.monotonic()
        self._trouble_since = now if self._trouble_since is None else self._trouble_since
        if text != self._last_trouble and now - self._trouble_since >= patience_s:
            self.tell(text)
            self._last_trouble = text

    def _stamp(self) -> tuple[object, ...]:
        """Return what changes when sites have to be registered again."""
        found = self.folder.file.stat()
        return (found.st_mtime_ns, found.st_ino, self._children[0].n_starts)

    def _write(self) -> None:
        children = tuple(child.state for child in self._children)
        state = SupervisorState(pid=os.getpid(), started=self._started, children=children)
        if state != self._written:
            write_json(self.folder.supervisor, state)
            self._written = state
