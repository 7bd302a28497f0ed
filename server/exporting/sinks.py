"""What an export writes to: the protocol of a sink, and the folder that a sink has for itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.codec import read_json, write_json
from common.errors import ConfigError
from common.files import locked, make_folder
from server.exporting.following import Source
from server.exporting.points import Point
from server.log_lines import Timed


@dataclass(frozen=True)
class Batch:
    """What was new in a run's log, in its order."""

    events: list[Timed]
    points: list[Point]


class Sink(Protocol):
    """Takes a run from its first event on, and writes only what is not there yet."""

    def take(self, batch: Batch) -> None:
        """Write what is new; it is where it belongs when this returns."""

    def close(self) -> None:
        """Let go of files and connections."""


@contextmanager
def held_for(folder: Path, source: Source) -> Iterator[None]:
    """Hold a folder for the exports of one run, and for this process.

    Args:
        folder: new, empty, or one that an export of the same run wrote to.
        source: the run; `export.json` in the folder remembers it.

    Raises:
        ConfigError: when the folder has other files, or another process exports into it.
        DiskError: when it cannot be made.
    """
    make_folder(folder)
    marker = folder / "export.json"
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if others and not marker.is_file():
        raise ConfigError(
            f"{folder}: expected an empty folder or one of this run's exports, found {others[0]}"
        )
    with (folder / ".lock").open("w") as file:
        if not locked(file):
            raise ConfigError(f"{folder}: another process is exporting into this folder")
        if not marker.is_file():
            write_json(marker, source)
        if (found := read_json(Source, marker)) != source:
            raise ConfigError(
                f"{folder}: expected a folder of run {source.run}, begun {source.started}, "
                f"found exports of run {found.run}, begun {found.started}"
            )
        yield
