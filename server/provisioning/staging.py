"""Changing many files of many kits at once, so that a crash loses nothing and mixes nothing.

Everything is written beside the kits first, in `.next`, and becomes decided by one rename to
`.ready`. From there each file moves to its place. Whoever comes next after a crash throws `.next`
away and finishes `.ready`: a change happens whole, or not at all. What a kit's folder holds besides
(the hospital's `site.toml`, the running programs' `state/`) is never touched.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigError, DiskError
from common.files import PRIVATE, READABLE, locked, write_atomically
from common.kit import CHECKSUMS, is_private
from server.provisioning.registry import registry_path

NEXT, READY, LOCK = ".next", ".ready", ".lock"
OWNER_ONLY = 0o700


@contextmanager
def held(kits: Path) -> Iterator[bool]:
    """Make the folder if need be, finish what a crash interrupted, and keep others out.

    Yields whether there was something to finish.

    Raises:
        ConfigError: when the folder holds something else than kits, or another process holds it.
        DiskError: when it cannot be made or written.
    """
    _demand_kits(kits)
    try:
        kits.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
        file = (kits / LOCK).open("w")
    except OSError as error:
        raise DiskError(f"{kits}: cannot be made or written: {error.strerror}") from None
    with file:
        if not locked(file):
            raise ConfigError(f"{kits}: another process is provisioning there")
        shutil.rmtree(kits / NEXT, ignore_errors=True)
        interrupted = (kits / READY).is_dir()
        _finish(kits)
        yield interrupted


def change(kits: Path, folders: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write files by folder and name, all or none; secrets so that nobody else can read them.

    Args:
        kits: held by this process.
        folders: contents by kit and file name.

    Raises:
        DiskError: when something cannot be written; then nothing was changed.
    """
    if not folders:
        return
    try:
        _prepare(kits / NEXT, folders)
        (kits / NEXT).rename(kits / READY)
    except OSError as error:
        raise DiskError(f"{kits}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(kits / NEXT, ignore_errors=True)
    _finish(kits)


def _prepare(staged: Path, folders: Mapping[str, Mapping[str, bytes]]) -> None:
    staged.mkdir(mode=OWNER_ONLY)
    for name, files in folders.items():
        (staged / name).mkdir(mode=OWNER_ONLY)
        for file, content in files.items():
            mode = PRIVATE if is_private(file) else READABLE
            write_atomically(staged / name / file, content, mode=mode)


def _finish(kits: Path) -> None:
    ready = kits / READY
    if not ready.is_dir():
        return
    try:
        for staged in sorted(ready.iterdir()):
            _move(staged, kits / staged.name)
        ready.rmdir()
    except OSError as error:
        raise DiskError(
            f"{error.filename2 or error.filename}: cannot be written: {error.strerror}; mend it "
            "and give the same command again, which finishes"
        ) from None


def _move(staged: Path, target: Path) -> None:
    """Move a whole kit, or what changed of one; its checksums last."""
    if not target.exists():
        staged.rename(target)
        return
    for file in sorted(staged.iterdir(), key=lambda path: (path.name == CHECKSUMS, path.name)):
        file.replace(target / file.name)
    staged.rmdir()


def _demand_kits(kits: Path) -> None:
    if kits.exists() and not kits.is_dir():
        raise ConfigError(f"{kits}: expected a folder for kits, found a file")
    if not kits.is_dir() or registry_path(kits).exists():
        return
    others = sorted(path.name for path in kits.iterdir() if path.name not in {NEXT, READY, LOCK})
    if others and not (kits / READY).is_dir():
        raise ConfigError(
            f"{kits}: expected an empty folder or one that `consilium provision` made, found "
            f"{others[0]}" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
        )
