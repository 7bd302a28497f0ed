"""A run's log on the disk: events appended one by one, whole and flushed, and read again.

One JSON object per line: {"time", "event", ...fields}. An event is written whole and flushed to
disk before the run goes on; a line that a crash cut short is ignored by the reader.
"""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.codec import decode, encode
from common.errors import ConfigError
from server.events import EVENT_TYPES, Event
from server.log_lines import read_usual


class EventLog:
    """Appends events to a file, the only state, and tells whoever watches."""

    def __init__(
        self,
        path: Path,
        watcher: Callable[[Event], None] | None = None,
        complete: Callable[[Event], Event] | None = None,
    ) -> None:
        """Open the log of a run.

        Args:
            path: of the file.
            watcher: is called after each event is on disk.
            complete: adds to an event what only the carrier knows, before it is written.
        """
        self._path, self._watcher, self._complete = path, watcher, complete

    def append(self, event: Event) -> None:
        """Write one event and flush it to disk."""
        if self._complete is not None:
            event = self._complete(event)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": type(event).__name__, **encode(event)})
        with self._path.open("ab") as file:
            file.write(self._separator() + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if self._watcher is not None:
            self._watcher(event)

    def completed_by(self, complete: Callable[[Event], Event]) -> "EventLog":
        """Return the same log with something that completes events."""
        return EventLog(self._path, self._watcher, complete)

    def _separator(self) -> bytes:
        """Return a line end when a crash left the last line unfinished."""
        if not self._path.stat().st_size:
            return b""
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"


def read_events(path: Path) -> Iterator[tuple[datetime, Event]]:
    """Yield (time, event) in the order written; unfinished lines are skipped.

    Raises:
        ConfigError: when a whole line does not fit its event type.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        found = read_usual(line.encode())  # five times as quick
        if found is not None:
            yield found
            continue
        try:
            plain = json.loads(line)
        except ValueError:
            continue
        yield event_of(plain, f"{path}:{number}")


def event_of(plain: Any, where: str) -> tuple[datetime, Event]:
    """Return the time and the event that a line's plain data mean.

    Raises:
        ConfigError: when they do not fit an event type; the text begins with `where`.
    """
    try:
        fields = dict(plain)
        time = datetime.fromisoformat(fields.pop("time"))
        kind = EVENT_TYPES[fields.pop("event")]
    except (KeyError, TypeError, ValueError):
        found = json.dumps(plain)
        raise ConfigError(f"{where}: expected the time and a known event, found {found}") from None
    event: Event = decode(kind, fields, source=where)
    return time, event
