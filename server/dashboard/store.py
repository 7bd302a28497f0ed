"""The folder of runs: which there are, what each holds, and who wants to know of changes.

    store = RunStore(folder, Limits())
    store.poll(now)                               # in a thread, every second or so
    store.summaries(), store.alarms()
    store.detail(name, now), store.search(name, query, now)      # None for an unknown name
    revision = await store.changed(since=revision)

Nothing is written to the folder. What goes wrong with one run stays with it.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Lock

from server.dashboard.alarms import Limits, disk_alarm, in_order
from server.dashboard.log_page import LogPage, LogQuery
from server.dashboard.log_search import kinds_of
from server.dashboard.run_files import Stamp, stamp_of
from server.dashboard.views import Alarm, RunDetail, RunSummary
from server.dashboard.watched_run import WatchedRun
from server.run_folder import RunFolder

MOST_RUNS = 2000
MOST_BYTES = 256 * 2**20  # of what was read: 25 runs of 60 sites and 1,000 rounds


class RunStore:
    """Watches a folder of runs, or one run; may be asked from any thread."""

    def __init__(
        self,
        folder: Path,
        limits: Limits,
        *,
        most_bytes: int = MOST_BYTES,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        """Watch a folder; nothing is read before `poll`.

        Args:
            folder: of runs, or a run itself.
            limits: what alarms are raised at.
            most_bytes: of memory for what was read; runs that nobody looks at are forgotten first.
            free_bytes: of the disk with a folder.
        """
        self.folder, self.limits = folder, limits
        self.revision = 0
        """Grows with every change."""
        self._most_bytes, self._free_bytes = most_bytes, free_bytes
        self._runs: dict[str, WatchedRun] = {}
        self._disk: Alarm | None = None
        self._further: dict[str, Alarm] = {}
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock, self._polling = Lock(), Lock()

    def poll(self, now: datetime) -> bool:
        """Look for what is new; return whether anything that is shown changed.

        Only files whose size or time changed are read. A second call waits for the first.
        """
        with self._polling:
            before, found = self.revision, dict(self._found())
            gone = [name for name in self._runs if name not in found]
            for name in gone:
                self._replace({other: run for other, run in self._runs.items() if other != name})
            newest_first = sorted(found.items(), key=lambda item: -_changed_ns(item[1][1]))
            for name, (path, stamp) in newest_first:
                self._look(name, path, stamp, now)
            self._look_at_disk(now)
            return self.revision != before

    def summaries(self) -> tuple[RunSummary, ...]:
        """Return the runs that were read, by name."""
        runs = self._runs
        return tuple(run.summary for _, run in sorted(runs.items()) if run.summary is not None)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return the alarms of all runs and of the folder, the worst first."""
        own = [*self._further.values(), *([self._disk] if self._disk else [])]
        return in_order([*own, *(alarm for run in self._runs.values() for alarm in run.alarms)])

    def detail(self, name: str, now: datetime) -> RunDetail | None:
        """Return what a run's page shows; None for an unknown name or a log that cannot be read."""
        run = self._runs.get(name)
        if run is None:
            return None
        try:
            return run.detail(now)
        except OSError:
            return None

    def search(self, name: str, query: LogQuery, now: datetime) -> LogPage | None:
        """Return lines of a run's log; None as in `detail`."""
        run = self._runs.get(name)
        if run is None:
            return None
        try:
            return run.search(query, now)
        except OSError:
            return None

    def kinds(self, name: str) -> tuple[str, ...]:
        """Return the kinds of lines in a run's log; none for an unknown name."""
        run = self._runs.get(name)
        try:
            return kinds_of(run.index()) if run is not None else ()
        except OSError:
            return ()

    def raise_alarm(self, key: str, alarm: Alarm | None) -> None:
        """Show an alarm of another part of the dashboard under a key, or take it back."""
        with self._lock:
            if alarm is None and key not in self._further:
                return
            kept = {name: known for name, known in self._further.items() if name != key}
            self._further = kept if alarm is None else {**kept, key: alarm}
        self._touch()

    async def changed(self, since: int) -> int:
        """Wait until there is something newer than a revision; return its revision."""
        event = asyncio.Event()
        waiter = asyncio.get_running_loop(), event
        with self._lock:
            self._waiting.add(waiter)
        try:
            while self.revision <= since:
                await event.wait()
                event.clear()
            return self.revision
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def _found(self) -> Iterator[tuple[str, tuple[Path, Stamp | None]]]:
        """Yield name, folder and the log's stamp of every run that there is."""
        own = stamp_of(self.folder / "events.jsonl")
        if own is not None:
            yield self.folder.resolve().name, (self.folder, own)
            return
        for path in self._folders():
            stamp = stamp_of(path / "events.jsonl")
            if stamp is not None or (path / "config.toml").is_file():
                name = path.name.encode(errors="surrogateescape").decode(errors="replace")
                yield name, (path, stamp)

    def _folders(self) -> list[Path]:
        try:
            with os.scandir(self.folder) as entries:
                names = [
                    entry.name
                    for entry in entries
                    if not entry.name.startswith(".") and entry.is_dir()
                ]
        except OSError:
            return []
        return [self.folder / name for name in sorted(names)[:MOST_RUNS]]

    def _look(self, name: str, path: Path, stamp: Stamp | None, now: datetime) -> None:
        run = self._runs.get(name)
        if run is None or run.folder.path != path:
            run = WatchedRun(name, RunFolder(path), self.limits)
            run.bring_up(stamp, now, self.revision + 1)
            self._replace({**self._runs, name: run})
            self._forget_unused()
        elif run.is_due(stamp, now) and run.bring_up(stamp, now, self.revision + 1):
            self._touch()
            self._forget_unused()

    def _look_at_disk(self, now: datetime) -> None:
        try:
            free = self._free_bytes(self.folder)
        except OSError:
            return
        found, before = disk_alarm(free, now, self.limits), self._disk
        if (found is None) != (before is None):
            self._disk = found
            self._touch()

    def _forget_unused(self) -> None:
        """Let go of what was read of the runs that were used least recently."""
        known = [run for run in self._runs.values() if run.data is not None and run.used]
        known.sort(key=lambda run: (run.used, run.name))
        total = sum(run.n_bytes for run in known)
        for run in known[:-1]:
            if total <= self._most_bytes:
                return
            total -= run.n_bytes
            run.forget()

    def _replace(self, runs: dict[str, WatchedRun]) -> None:
        self._runs = runs
        self._touch()

    def _touch(self) -> None:
        """Tell everybody who waits that something changed."""
        with self._lock:
            self.revision += 1
            waiting = list(self._waiting)
        for loop, event in waiting:
            with suppress(RuntimeError):  # a loop that has just been closed
                loop.call_soon_threadsafe(event.set)


def _changed_ns(stamp: Stamp | None) -> int:
    return stamp[1] if stamp is not None else 0
