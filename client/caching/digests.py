"""What is in the raw files, by their SHA-256, without reading them all for every message.

A table in the cache remembers the digest of a file by its inode, size and times of change; it
holds no names. A file that changed within the last seconds before it was read is not remembered:
it could change once more within the same tick of the clock, and nothing would show it (git calls
such a file racy). Stays at the site.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from client.caching.scratch import scratch
from client.parallel import in_order
from common.codec import read_json, write_json
from common.errors import ConfigError, DataError, Defect, DiskError

TABLE: Final = "known-files.json"
SETTLED_NS: Final = 10 * 10**9  # ticks are up to 2 s long (FAT); the rest is for clocks that differ

Facts: TypeAlias = str
"""Inode, size and times of change of a file: equal for the same content only."""
Digests: TypeAlias = dict[Facts, str]


@dataclass(frozen=True)
class Content:
    """What a raw file held when its digest was taken."""

    facts: Facts
    sha256: str


def facts_of(path: Path) -> Facts:
    """Return what identifies the content of a file without reading it.

    Raises:
        DataError: when there is no such file.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"


def contents_of(paths: Sequence[Path], folder: Path) -> dict[Path, Content]:
    """Return what files hold, reading only those that the table in `folder` does not know.

    Args:
        paths: of raw files.
        folder: of the cache; the table in it is brought up to date.

    Raises:
        DataError: with every file that cannot be read.
    """
    facts, known = _facts_of_all(paths), _table(folder)
    began_ns = time.time_ns()
    unread = [path for path in paths if facts[path] not in known]
    read = dict(zip(unread, in_order(_digest, unread), strict=True))
    fresh = {facts[path]: read[path] for path in unread if _settled(path, facts[path], began_ns)}
    if fresh:
        _remember(fresh, folder)
    return {
        path: Content(facts[path], read[path] if path in read else known[facts[path]])
        for path in paths
    }


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a raw file that cannot be read."""
    defect = Defect(path.name.split(".")[0], str(path), "a readable file", str(error.strerror))
    return DataError("The data cannot be used:", [defect])


def _facts_of_all(paths: Sequence[Path]) -> dict[Path, Facts]:
    facts, defects = dict[Path, Facts](), list[Defect]()
    for path in paths:
        try:
            facts[path] = facts_of(path)
        except DataError as error:
            defects.extend(error.defects)
    if defects:
        raise DataError("The data cannot be used:", defects)
    return facts


def _table(folder: Path) -> Digests:
    """Return what is known; a table that is missing or damaged only costs time."""
    try:
        return read_json(Digests, folder / TABLE)
    except ConfigError:
        return {}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def _settled(path: Path, facts: Facts, began_ns: int) -> bool:
    """Return whether a file had long been left alone before it was read, and still is."""
    changed_ns = max(int(time_ns) for time_ns in facts.split("-")[2:])
    return began_ns - changed_ns > SETTLED_NS and facts_of(path) == facts


def _remember(fresh: Digests, folder: Path) -> None:
    """Add to the table; what another process adds at the same moment is read again by the next.

    A full disk is no error here: a cache that is complete can still be used.
    """
    with suppress(DiskError, OSError), scratch(folder) as temporary:
        write_json(temporary / TABLE, _table(folder) | fresh)
        (temporary / TABLE).replace(folder / TABLE)
