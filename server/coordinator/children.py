"""Programs that a supervisor keeps running: started again with back-off, each with its own log."""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from common.codec import record
from common.files import make_folder
from server.coordinator.lifeline import LIFELINE

LOG_BYTES, N_LOGS = 10 * 2**20, 5  # of each program
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0  # before a program that ended is started again
STEADY_S = 60.0  # a program that lived so long begins again with the first wait
END_S = 20.0  # to end by itself before it is ended


@record
class ChildState:
    """What the status says of a program."""

    name: str
    pid: int | None
    """None while it waits to be started again."""
    n_starts: int
    last_exit: int | None = None
    """Exit code of its last end; negative: the signal that ended it."""


class Child:
    """One program; `tend` is to be called every second or so."""

    def __init__(
        self,
        name: str,
        module: str,
        kit: Path,
        logs: Path,
        clock: Callable[[], float],
    ) -> None:
        """Describe a program: a module of ours that takes the kit's folder."""
        self.name, self.n_starts = name, 0
        self._command = [sys.executable, "-m", module, str(kit), LIFELINE]
        self._log = rotating_log(logs / f"{name}.log", f"consilium.child.{name}")
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._last_exit: int | None = None
        self._began, self._next_start, self._wait_s = 0.0, 0.0, FIRST_WAIT_S

    @property
    def state(self) -> ChildState:
        """What it does now."""
        pid = None if self._process is None else self._process.pid
        return ChildState(
            name=self.name, pid=pid, n_starts=self.n_starts, last_exit=self._last_exit
        )

    def tend(self) -> str | None:
        """Start it if it is due; return a line about what happened, if anything did."""
        now = self._clock()
        if self._process is None:
            return self._start(now) if now >= self._next_start else None
        if (code := self._process.poll()) is None:
            return None
        self._close()
        self._last_exit = code
        if now - self._began >= STEADY_S:
            self._wait_s = FIRST_WAIT_S
        self._next_start, waits = now + self._wait_s, self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        return f"{self.name} ended {ending(code)}; it is started again in {waits:g} s"

    def end(self) -> None:
        """End it and wait until it has."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _start(self, now: float) -> str:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the supervisor, which ends its children itself
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=_copy, args=(self._process.stdout, self._log), daemon=True).start()
        self._began, self.n_starts = now, self.n_starts + 1
        again = "" if self.n_starts == 1 else " again"
        return f"{self.name} started{again} (process {self._process.pid})"

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def ending(code: int) -> str:
    """Return how a program ended, in words."""
    if code < 0:
        return f"by signal {signal.Signals(-code).name}"
    return f"with exit code {code}"


def rotating_log(path: Path, name: str) -> logging.Logger:
    """Return a log of whole lines, with older ones beside it."""
    make_folder(path.parent)
    log = logging.getLogger(name)
    for handler in tuple(log.handlers):
        log.removeHandler(handler)
        handler.close()
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=N_LOGS, encoding="utf-8")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    return log


def close_log(log: logging.Logger) -> None:
    """Close the files of a log."""
    for handler in tuple(log.handlers):
        log.removeHandler(handler)
        handler.close()


def _copy(output: Sequence[bytes] | IO[bytes] | None, log: logging.Logger) -> None:
    if output is None or isinstance(output, Sequence):
        return
    with output:
        for line in output:
            log.info("%s", line.decode("utf-8", "replace").rstrip("\n"))
