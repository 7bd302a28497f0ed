"""Follows a run's log until the run is finished, batch by batch."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from common.codec import record
from common.console import say
from common.errors import ConfigError
from server.events import RunFinished, RunStarted
from server.exporting.reading import readable
from server.log_lines import Timed

PAUSE_S = 1.0  # between two looks at the log


@record
class Source:
    """Which run an export is of; the same however often it is exported."""

    run: str
    """Name of the run directory."""
    started: datetime
    """Time of the first event."""


def batches(log: Path, *, follow: bool) -> Iterator[list[Timed]]:
    """Yield a log's events in order, what is there at once in one batch.

    Args:
        log: of the run.
        follow: goes on until the run is finished, and waits for a log that is not there yet.

    Raises:
        ConfigError: when no run is there, or another one takes its place.
    """
    if not log.parent.is_dir() or not (follow or log.is_file()):
        raise ConfigError(f"{log.parent}: expected a run directory, found no events.jsonl in it")
    offset, finished = 0, False
    while True:
        events, offset = readable(log, offset)
        if events:
            finished = _is_finished(events, before=finished)
            yield events
        if not follow or finished:
            break
        if not events:
            time.sleep(PAUSE_S)
    if log.stat().st_size > offset:
        say(f"left out: {log}: byte {offset}: an unfinished last line")


def _is_finished(events: list[Timed], *, before: bool) -> bool:
    """Return whether a run is finished after some events: a finished one can be resumed."""
    for _, event in events:
        if isinstance(event, RunFinished | RunStarted):
            before = isinstance(event, RunFinished)
    return before
