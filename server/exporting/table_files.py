"""Writes tables of a run's events and scores into a folder, one file for each, whole or not."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from common.files import write_atomically
from server.exporting.sinks import Batch
from server.exporting.tables import SCORES, events_by_kind, score_table, table_of
from server.log_lines import Timed
from server.run_folder import RunFolder


class TableFiles:
    """A folder with a file per kind of event, `SiteTrained.csv` for example, and the scores."""

    def __init__(
        self, into: Path, ending: str, content: Callable[[pd.DataFrame], bytes], run: RunFolder
    ) -> None:
        """Begin with no event.

        Args:
            into: the folder.
            ending: of the files' names.
            content: makes a file's content of a table.
            run: whose scores are written as well.
        """
        self._into, self._ending, self._content, self._run = into, ending, content, run
        self._events: dict[str, list[Timed]] = defaultdict(list)
        self._written: list[tuple[Path, int]] = []

    def take(self, batch: Batch) -> None:
        """Write the tables that have new rows again."""
        for kind, events in events_by_kind(batch.events).items():
            self._events[kind] += events
            self._write(kind, table_of(kind, self._events[kind]))
        paths = sorted(self._run.path.glob("scores/*/*.csv"))
        found = [(path, path.stat().st_mtime_ns) for path in paths]
        if found != self._written:
            self._write(SCORES, score_table(paths))
            self._written = found

    def close(self) -> None:
        """Do nothing: every file is closed."""

    def _write(self, name: str, table: pd.DataFrame) -> None:
        write_atomically(self._into / f"{name}.{self._ending}", self._content(table))
