"""TensorBoard's files of events, by the package `tensorboard`; no TensorFlow, no torch.

Every method has a folder, so that TensorBoard draws methods over each other. What a file already
holds is read from it before anything is added: there is no other record that a crash could part
from the files. An event is known by its tag, round and time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from server.exporting.following import Source
from server.exporting.points import WHOLE_RUN
from server.exporting.settings import settings_of
from server.exporting.sinks import Batch
from server.run_folder import RunFolder

RUN = "run"
"""Folder of what belongs to no method."""
Known: TypeAlias = set[tuple[str, int, float]]


class TensorBoardFiles:
    """A folder that `tensorboard --logdir` shows."""

    def __init__(self, into: Path, run: RunFolder, source: Source) -> None:
        """Open nothing yet."""
        self._into, self._run, self._source = into, run, source
        self._methods: dict[str, _MethodFiles] = {}

    def take(self, batch: Batch) -> None:
        """Write the points that no file holds yet."""
        for point in batch.points:
            value = Summary.Value(tag=point.name, simple_value=point.value)
            summary = Summary(value=[value])
            self._files_of(point.method).add(summary, point.step, point.time.timestamp())
        for files in self._methods.values():
            files.flush()

    def close(self) -> None:
        """Close the files."""
        for files in self._methods.values():
            files.close()

    def _files_of(self, method: str) -> "_MethodFiles":
        if method not in self._methods:
            self._methods[method] = files = _MethodFiles(self._into / (method or RUN))
            if method != WHOLE_RUN:
                began = self._source.started.timestamp()
                settings = settings_of(self._run.config) | {"method": method}
                group = f"{self._source.run}/{method}"
                files.add(hparams_pb(settings, trial_id=group, start_time_secs=began), 0, began)
        return self._methods[method]


class _MethodFiles:
    """The files of one method: older ones are only read, a new one begins with what is new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None
        self._known: Known = set()
        for path in sorted(folder.glob("events.out.tfevents.*")):
            self._known.update(_keys_in(path))

    def add(self, summary: Summary, step: int, time_s: float) -> None:
        """Write one summary, unless it is known."""
        key = (summary.value[0].tag, step, time_s)
        if key in self._known:
            return
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
        self._writer.add_event(Event(wall_time=time_s, step=step, summary=summary))
        self._known.add(key)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _keys_in(path: Path) -> Iterator[tuple[str, int, float]]:
    """Yield what a file holds; a record that a crash cut short is not there."""
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield value.tag, event.step, event.wall_time
