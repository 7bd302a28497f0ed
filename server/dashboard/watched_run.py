"""One run that is watched: read on when its log grows, judged again when time passes."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import RLock

from server.dashboard.alarms import Limits, alarms_of
from server.dashboard.detail import detail_of
from server.dashboard.facts import Facts, facts_of
from server.dashboard.line_index import LineIndex
from server.dashboard.log_page import LogPage, LogQuery
from server.dashboard.log_search import search
from server.dashboard.run_data import RunData, follow
from server.dashboard.run_files import FileCache, Stamp, read_files, stamp_of
from server.dashboard.run_settings import RunSettings, read_config, settings_of
from server.dashboard.standing import summary_of
from server.dashboard.views import Alarm, RunDetail, RunSummary
from server.run_folder import RunFolder

RECHECK_S = 15.0  # silence and time left are judged so often while nothing is logged
LEFT_CHANGED_S, LEFT_CHANGED_SHARE = 60.0, 0.02  # smaller changes of the time left are not told


@dataclass
class WatchedRun:
    """A run folder, what was read of it, and what follows from that."""

    name: str
    folder: RunFolder
    limits: Limits
    data: RunData | None = None
    """None before the first reading, and after it was forgotten to save memory."""
    facts: Facts | None = None
    alarms: tuple[Alarm, ...] = ()
    summary: RunSummary | None = None
    used: datetime | None = None
    """When it last grew, or somebody looked at it."""
    lock: RLock = field(default_factory=RLock)
    _log_stamp: Stamp | None = None
    _config_stamp: Stamp | None = None
    _settings: RunSettings = field(default_factory=RunSettings)
    _judged: datetime | None = None
    _files: FileCache = field(default_factory=FileCache)
    _detail: RunDetail | None = None
    _damage: str = ""
    """Why the log could not be read at the last try."""

    @property
    def n_bytes(self) -> int:
        """About how much memory it takes."""
        return self.data.n_bytes if self.data is not None else 0

    def is_due(self, log_stamp: Stamp | None, now: datetime) -> bool:
        """Return whether there is anything to do: it grew, or time may have changed its state."""
        if self.facts is None or log_stamp != self._log_stamp or self._damage:
            return True
        if self.facts.is_finished or self._judged is None:
            return False
        return now - self._judged >= timedelta(seconds=RECHECK_S)

    def bring_up(self, log_stamp: Stamp | None, now: datetime, revision: int) -> bool:
        """Read what was appended and judge the run; return whether anything that is shown changed.

        Args:
            log_stamp: of the log as it is now.
            now: the time of day.
            revision: of what is shown, if it changes.
        """
        with self.lock:
            grew = log_stamp != self._log_stamp or self.facts is None or bool(self._damage)
            configured = self._read_settings()
            if grew:
                self._read(log_stamp)
                self.used = now
            if (grew or configured) and self.data is not None:
                self.facts = facts_of(self.data, self._settings)
            elif configured and self.facts is not None:
                self.facts = replace(self.facts, settings=self._settings)
            return self._judge(now, revision, told=grew)

    def detail(self, now: datetime) -> RunDetail:
        """Return what the run's page shows; its log is read again if that was forgotten.

        Raises:
            OSError: when the log cannot be read.
        """
        with self.lock:
            self.used = now
            data, facts = self._remembered()
            summary = self._summary(facts, now)
            if self._detail is None or self._detail.summary != summary:
                files = read_files(self.folder, self._files)
                self._detail = detail_of(data, facts, files, summary, self.alarms, now, self.limits)
            return self._detail

    def search(self, query: LogQuery, now: datetime) -> LogPage:
        """Return lines of the log; errors as in `detail`."""
        with self.lock:
            self.used = now
            data, facts = self._remembered()
            n_rounds = facts.settings.n_rounds or max(dict(facts.ended).values(), default=0)
            if not self.folder.events.exists():
                return LogPage((), None, complete=True, n_total=0)
            return search(self.folder.events, data.index, query, n_rounds=n_rounds)

    def index(self) -> LineIndex:
        """Return where the lines of the log begin; errors as in `detail`."""
        with self.lock:
            return self._remembered()[0].index

    def forget(self) -> None:
        """Let go of what takes memory; the line in the table and the alarms stay."""
        with self.lock:
            self.data, self._detail, self._files = None, None, FileCache()

    def _remembered(self) -> tuple[RunData, Facts]:
        if self.data is None or self.facts is None:
            self.data = self._followed(RunData())
            self.facts = facts_of(self.data, self._settings)
        return self.data, self.facts

    def _read(self, log_stamp: Stamp | None) -> None:
        """Read the log; what cannot be read is tried again."""
        try:
            self.data = self._followed(self.data or RunData())
        except OSError as error:
            self._damage = f"events.jsonl cannot be read: {error.strerror}"
            self.data = self.data or RunData()
        else:
            self._log_stamp, self._damage = log_stamp, ""

    def _followed(self, data: RunData) -> RunData:
        try:
            return follow(self.folder.events, data)
        except FileNotFoundError:  # made, but not started; or its log is gone
            return RunData()

    def _read_settings(self) -> bool:
        stamp = stamp_of(self.folder.config)
        if stamp == self._config_stamp and self.facts is not None:
            return False
        self._config_stamp = stamp
        self._settings = settings_of(read_config(self.folder.config)[1])
        return True

    def _judge(self, now: datetime, revision: int, *, told: bool) -> bool:
        """Bring alarms and the table's line up to the time of day."""
        if self.facts is None:
            return False
        self._judged = now
        before, alarms = self.summary, alarms_of(self.name, self.facts, now, self.limits)
        summary = summary_of(self.name, self.facts, alarms, now, self.limits, revision)
        if self._damage:
            summary = replace(summary, state="unreadable", reason=self._damage)
        if not told and before and alarms == self.alarms and _looks_same(before, summary):
            return False
        self.alarms, self.summary = alarms, summary
        return True

    def _summary(self, facts: Facts, now: datetime) -> RunSummary:
        if self.summary is None:
            self.summary = summary_of(self.name, facts, self.alarms, now, self.limits, 0)
        return self.summary


def _looks_same(before: RunSummary, now: RunSummary) -> bool:
    """Return whether two lines differ in nothing but the revision and a little time left."""
    was, left = before.progress.left_s, now.progress.left_s
    if was is not None and left is not None:
        if abs(was - left) > max(LEFT_CHANGED_S, LEFT_CHANGED_SHARE * was):
            return False
    elif was is not left:
        return False
    progress = replace(now.progress, left_s=was)
    return replace(now, progress=progress, revision=before.revision) == before
