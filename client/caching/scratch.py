"""Temporary folders that cannot outlive their process: whoever comes next removes them at once.

A folder is locked as long as its owner lives; the kernel drops the lock of a process that is
killed, also in another container. What is finished is renamed out of it.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

from common.errors import DiskError
from common.files import locked

PREFIX: Final = ".unfinished-"  # no folder of a person's, so that it may be removed
ABANDONED_S: Final = 86_400  # age that stands for the lock where the file system knows no locks
ATTEMPTS: Final = 10  # a folder is lost only to a sweep between two system calls

Lock: TypeAlias = int
"""An open file descriptor."""


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Yield an empty folder inside `parent`, on the same disk; it is removed at the end.

    Raises:
        DiskError: when it cannot be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _locked_folder(parent)
    except OSError as error:
        raise DiskError(f"{parent}: cannot be written: {error.strerror}") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(parent: Path) -> None:
    """Remove the temporary folders in `parent` whose owners are dead; touch no others."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process sweeps as well, or the disk is read-only
            _remove_if_abandoned(folder)


def _locked_folder(parent: Path) -> tuple[Path, Lock]:
    for _ in range(ATTEMPTS):
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
        with suppress(FileExistsError, FileNotFoundError):  # a sweep took it for abandoned
            lock = os.open(folder / "lock", os.O_CREAT | os.O_EXCL | os.O_RDWR)
            if _lock(lock) and (folder / "lock").stat().st_ino == os.fstat(lock).st_ino:
                return folder, lock
            os.close(lock)
    raise FileNotFoundError(0, "temporary folders vanish as soon as they are made")


def _remove_if_abandoned(folder: Path) -> None:
    changed_s = folder.stat().st_mtime
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    try:
        if _lock(lock, without=time.time() - changed_s > ABANDONED_S):
            shutil.rmtree(folder)
    finally:
        os.close(lock)


def _lock(lock: Lock, *, without: bool = True) -> bool:
    """Take a lock; False when another holds it, `without` where locks are not known."""
    try:
        return locked(lock)
    except OSError:
        return without
