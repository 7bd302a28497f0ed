"""Runs a site for ever: asks the coordinator, starts Flower, watches it, starts it again.

Whatever ends Flower's process - a lost network, a new start of the coordinator, a crash - it comes
back. Flower goes on trying by itself when a connection breaks, but it can also stay alive without
being heard: the pulse file tells (`client.service.hooks.keep_pulse`), and a call to the coordinator
tells whether the reason lies here.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from client.service.connection_checks import refusal
from client.service.environment import environment
from client.service.files import ServiceFiles, service_files
from client.service.hello import UnreachableError, ask
from client.service.running import only_one
from client.service.service_log import Follower, in_words, last_lines
from client.service.waits import Waits
from client.site import SiteConfig, site_log
from common.errors import ConfigError
from common.kit import Hello, Refused, SiteKit

TICK_S = 0.5
SILENT_S = 45.0  # heartbeats come every 17 to 23 s (flwr.common.constant)
STARTING_S = 120.0  # Flower and torch are imported from a slow disk
END_TIMEOUT_S = 20.0
LARGEST_LOG_BYTES = 10_000_000
BAD_KIT = 2
N_LAST = 8  # lines of Flower's log, when it cannot even start


@dataclass
class Supervisor:
    """One site's service while it runs."""

    kit: SiteKit
    folder: Path
    site: SiteConfig
    waits: Waits
    echo: Callable[[str], None]
    """Prints a line."""
    stop: threading.Event = field(default_factory=threading.Event)
    signal: int = 0
    """Which one ended this, 0 for none."""
    said: str = ""
    """The last thing that was said about the connection, which is not said twice."""

    def __post_init__(self) -> None:
        """Keep the log at hand; what is said goes there, and from there to the screen."""
        self.files: ServiceFiles = service_files(self.site)
        self.log: logging.Logger = site_log(self.site)
        self.follower = Follower(self.site.state_folder / "site.log")

    def run(self) -> int:
        """Run until a signal ends it.

        Returns:
            The exit code: 0, 130 after Ctrl-C, 2 when the kit can never work.

        Raises:
            ConfigError: when this site runs already, or Flower cannot be started at all.
        """
        with only_one(self.files):
            self._catch_signals()
            self.log.info("site %s started", self.site.name)
            code = self._keep_running()
            self.log.info("site %s stopped", self.site.name)
            self._show_log()
            return code

    def _keep_running(self) -> int:
        while not self.stop.is_set():
            try:
                wait_s = self._attempt()
            except UnreachableError as error:
                self._say(f"{error.found}; {error.mend}", logging.ERROR)
                return BAD_KIT
            self._rest(wait_s)
        return 128 + self.signal if self.signal == signal.SIGINT else 0

    def _attempt(self) -> float:
        """Run Flower once if the coordinator knows us; return how long to wait after that."""
        answer = self._ask()
        if isinstance(answer, Refused):
            return self.waits.long_s()
        if answer is None:
            return self.waits.next_s()
        ended = self._run_flower()
        if self.stop.is_set():
            return 0.0
        if ended is None:
            return self.waits.long_s()
        wait_s = self.waits.next_s()
        self._say(f"{ended}; it is started again in {wait_s:.0f} s", logging.WARNING)
        return wait_s

    def _ask(self) -> Hello | Refused | None:
        """Ask the coordinator and say what is wrong; None when it cannot be reached."""
        try:
            answer, _ = ask(self.kit, self.folder)
        except ConfigError as error:
            self._say(str(error), logging.ERROR)
            return None
        except UnreachableError as error:
            if error.for_good:
                raise
            self._say(f"waiting for the coordinator: {error.found}", logging.WARNING)
            return None
        if isinstance(answer, Refused):
            why = refusal(answer)
            text = f"{why.found}; {why.mend}".replace("\n", "; ")
            self._say(f"refused: {text}; trying again from time to time", logging.ERROR)
        return answer

    def _run_flower(self) -> str | None:
        """Start Flower and watch it; return in words how it ended, None if we are refused."""
        self.files.pulse.unlink(missing_ok=True)
        child = self._start_flower()
        try:
            return self._watch(child)
        finally:
            end(child)

    def _start_flower(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "client.service.supernode", str(self.folder.resolve())]
        if self.files.log.exists() and self.files.log.stat().st_size > LARGEST_LOG_BYTES:
            self.files.log.replace(self.files.log.with_suffix(".log.1"))
        with self.files.log.open("ab") as log:
            return subprocess.Popen(
                [*command, str(os.getpid())],
                env=environment(self.files),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us; we end it in order
            )

    def _watch(self, child: subprocess.Popen[bytes]) -> str | None:
        """Wait until Flower ends, has to be ended, or we are told to stop or refused."""
        pulse = Pulse(self.files.pulse)
        n_heard, next_ask_s = 0, 0.0
        while not self.stop.is_set():
            self._show_log()
            if (code := child.poll()) is not None:
                if code == BAD_KIT and not pulse.beats:
                    raise ConfigError("\n".join(last_lines(self.files.log, N_LAST, full=True)))
                return f"Flower ended ({_ending(code)}, see {self.files.log})"
            silent_s = pulse.silent_s()
            if pulse.beats and silent_s < SILENT_S:
                n_heard, next_ask_s = 0, 0.0
                self.waits.begin_anew()
                self._say(f"connected to {self.kit.coordinator} as {self.site.name}")
            elif silent_s > max(next_ask_s, SILENT_S if pulse.beats else STARTING_S):
                next_ask_s = silent_s + SILENT_S
                answer = self._ask()
                n_heard = n_heard + 1 if isinstance(answer, Hello) else 0
                if isinstance(answer, Refused):
                    return None
                if n_heard == 2:  # once may be before Flower's own next attempt
                    return "Flower is no longer heard by the coordinator and was ended"
            self.stop.wait(TICK_S)
        return "stopped"

    def _rest(self, wait_s: float) -> None:
        """Wait, and go on showing what is logged."""
        self._show_log()
        self.stop.wait(wait_s)

    def _say(self, text: str, level: int = logging.INFO) -> None:
        if text != self.said:
            self.said = text
            self.log.log(level, "%s", text)

    def _show_log(self) -> None:
        for line in self.follower.new_lines():
            if words := in_words(line):
                self.echo(words)

    def _catch_signals(self) -> None:
        def note(number: int, _: FrameType | None) -> None:
            self.signal = number
            self.stop.set()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, note)


class Pulse:
    """When the pulse file was last touched, by a clock that nobody sets."""

    def __init__(self, path: Path) -> None:
        """Begin to listen now."""
        self.path, self.beats = path, False
        self.touched_ns, self.seen_s = 0, time.monotonic()

    def silent_s(self) -> float:
        """Return for how long nothing was heard, in seconds; at first, since we listen."""
        with suppress(FileNotFoundError):
            touched_ns = self.path.stat().st_mtime_ns
            if touched_ns != self.touched_ns:
                self.beats, self.touched_ns, self.seen_s = True, touched_ns, time.monotonic()
        return time.monotonic() - self.seen_s


def end(child: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and whatever is left of its group."""
    child.terminate()
    try:
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
