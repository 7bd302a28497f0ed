"""Writing files so that a crash or a full disk leaves the old file or the new one, never half."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.errors import DiskError


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        DiskError: when that is not possible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{path}: cannot be made: {error.strerror}") from None


def demand_writable(path: Path) -> None:
    """Demand that a file can be written, before work whose result goes there.

    Raises:
        DiskError: when its folder cannot be made or written to.
    """
    make_folder(path.parent)
    if not os.access(path.parent, os.W_OK):
        raise DiskError(f"{path}: cannot be written: its folder is read-only")


def locked(file: IO[str] | int, *, wait: bool = False) -> bool:
    """Take the lock of an open file; the system lets go of it however this process ends.

    Args:
        file: open, or its descriptor; the lock is held until it is closed.
        wait: until the process that holds the lock lets go of it.

    Returns:
        Whether the lock was taken; False when another process holds it.

    Raises:
        OSError: where the file system knows no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def round_of(path: Path) -> int | None:
    """Return the number in a file name ``round-<number>.<ending>``; None for other names."""
    number = path.stem.removeprefix("round-")
    return int(number) if number.isdecimal() else None


def newest_up_to(path: Path) -> Path | None:
    """Return the file of a round or, without it, of the last round before it; None without any.

    Args:
        path: named ``round-<number>`` with any ending.
    """
    wanted = round_of(path) or 0
    numbered = [(round_of(other), other) for other in path.parent.glob(f"round-*{path.suffix}")]
    usable = sorted((n, other) for n, other in numbered if n is not None and n <= wanted)
    return usable[-1][1] if usable else None


def keep_recent(path: Path, n_rounds: int) -> None:
    """Delete the files of all rounds but the one of `path` and the last ones before it.

    Files of later rounds are deleted as well: they belong to an earlier run of the same name.

    Args:
        path: named ``round-<number>`` with any ending.
        n_rounds: how many files to keep, counted from `path` backwards.
    """
    newest = round_of(path)
    if newest is None:
        raise ValueError(f"{path}: expected a name like round-0001")
    numbered = [(round_of(other), other) for other in path.parent.glob(f"round-*{path.suffix}")]
    rounds = sorted(((n, other) for n, other in numbered if n is not None), reverse=True)
    kept = [other for number, other in rounds if number <= newest][:n_rounds]
    for _, other in rounds:
        if other not in kept:
            other.unlink(missing_ok=True)


READABLE, PRIVATE = 0o644, 0o600


def write_atomically(path: Path, content: bytes, *, mode: int = READABLE) -> None:
    """Write `content` to `path`, whole or not at all.

    Args:
        path: where.
        content: what.
        mode: rights of the file; nobody else can ever read a `PRIVATE` one.

    Raises:
        DiskError: when the folder cannot be written or the disk is full.
    """
    with replacing(path, mode=mode) as temporary:
        temporary.write_bytes(content)


def flush_folder(folder: Path) -> None:
    """See to it that new names in a folder are still there after a power cut.

    Raises:
        OSError: when the folder cannot be opened or flushed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, *, mode: int = READABLE) -> Iterator[Path]:
    """Give a temporary neighbour to write to; flush it to disk and rename it to `path` at the end.

    Args:
        path: where the file goes.
        mode: its rights at the end; until then only this user can read it.

    Raises:
        DiskError: when the folder cannot be written or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error.strerror}") from None
    os.close(handle)
    try:
        yield Path(temporary)
        with Path(temporary).open("rb") as file:  # the writer may have put another file there
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)  # mkstemp makes 0600; most files are meant to be read
        Path(temporary).replace(path)
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
