"""Keeping the wanted runs going: what is neither finished nor running is started again.

A run that the SuperLink believes to be running is lost when the executor was: its program ended
with it. Every attempt resumes from the run's own checkpoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError
from server.coordinator.control import Control, FlowerRun
from server.coordinator.wanted_runs import WantedRun, change, read_wanted
from server.event_counts import is_finished, n_steps_done

MAX_ATTEMPTS = 5  # without a round, a plan or a score between them
FIRST_WAIT_S, LONGEST_WAIT_S = 5.0, 60.0  # between attempts without progress
FOR_A_PERSON = "policy:approval"  # a site's answer while a person there has not decided: no failure
MAX_REASON = 1000  # characters


@dataclass
class _Attempts:
    """What this supervisor tried for a run."""

    n_since_progress: int = 0
    steps_done: int = -1
    next_start: float = 0.0
    id: int | None = None
    """Of the attempt that this supervisor began last."""


@dataclass
class RunKeeper:
    """Starts and stops attempts at runs; `tend` is to be called every few seconds."""

    path: Path
    """Of `runs.json`."""
    tell: Callable[[str], None]
    clock: Callable[[], float]
    _attempts: dict[str, _Attempts] = field(default_factory=dict)
    _settled: set[WantedRun] = field(default_factory=set)
    """For which nothing is left to be done."""
    _alive: set[int] = field(default_factory=set)
    """Attempts that this supervisor's present executor may be running."""

    def forget_executor(self) -> None:
        """The executor is another one now: what it ran has ended."""
        self._alive.clear()

    def tend(self, control: Control) -> None:
        """Bring what the SuperLink does closer to what is wanted.

        Raises:
            FederationError: when the SuperLink does not answer; nothing is lost then.
        """
        open_runs = [run for run in read_wanted(self.path) if run not in self._settled]
        if not open_runs:
            return
        flower_runs = control.runs()
        for run in open_runs:
            own = [one for one in flower_runs if one.folder == run.folder]
            try:
                self._tend_run(control, run, own)
            except ConfigError as error:
                self._give_up(run, str(error))

    def _tend_run(self, control: Control, run: WantedRun, own: Sequence[FlowerRun]) -> None:
        active = [one for one in own if not one.is_over]
        if not run.is_wanted:
            self._stop(control, run, active)
            self._settled.add(run)
        elif lost := [one for one in active if one.id not in self._alive]:
            self._stop(control, run, lost)
        elif active:
            return
        elif is_finished(run.run.events):
            self.tell(f"run {run.run.name}: finished: {run.folder}")
            self._settled.add(run)
        else:
            self._start(control, run, own)

    def _stop(self, control: Control, run: WantedRun, active: Sequence[FlowerRun]) -> None:
        for one in active:
            control.stop(one.id)
            self.tell(f"run {run.run.name}: attempt {one.id} was stopped")

    def _start(self, control: Control, run: WantedRun, own: Sequence[FlowerRun]) -> None:
        attempts, now = self._attempts.setdefault(run.folder, _Attempts()), self.clock()
        if now < attempts.next_start:
            return
        failure = _failure(attempts, own)
        if (done := n_steps_done(run.run.events)) > attempts.steps_done:
            attempts.n_since_progress, attempts.steps_done, failure = 0, done, None
        if failure is not None and FOR_A_PERSON in failure:
            attempts.n_since_progress = 0
            wait_s = LONGEST_WAIT_S
        else:
            wait_s = min(FIRST_WAIT_S * 2**attempts.n_since_progress, LONGEST_WAIT_S)
        if attempts.n_since_progress >= MAX_ATTEMPTS:
            tried = f"{MAX_ATTEMPTS} attempts without progress; the last one: {failure}"
            self._give_up(run, f"{tried}; see executor.log")
            return
        if failure != run.last_failure:
            change(self.path, run.folder, last_failure=failure)
        resumed = run.run.cohort.exists()  # sites come to and leave only what has begun
        admit, without = (run.admit, run.without) if resumed else ((), ())
        attempts.id = control.start(Path(run.folder), ",".join(admit), ",".join(without))
        self._alive.add(attempts.id)
        attempts.n_since_progress, attempts.next_start = attempts.n_since_progress + 1, now + wait_s
        self.tell(f"run {run.run.name}: {'resumed' if resumed else 'started'}: {run.folder}")

    def _give_up(self, run: WantedRun, reason: str) -> None:
        self._attempts.pop(run.folder, None)
        change(self.path, run.folder, given_up=reason)
        self.tell(f"run {run.run.name}: given up: {reason}")


def _failure(attempts: _Attempts, own: Sequence[FlowerRun]) -> str | None:
    """Return how this supervisor's last attempt ended; None before the first one."""
    if attempts.id is None:
        return None
    last = next((one for one in own if one.id == attempts.id), None)
    return (last.details if last is not None else "")[:MAX_REASON] or "no reason is known"
