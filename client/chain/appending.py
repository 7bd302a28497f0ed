"""Append to a chained file: the line is on the disk before anything is done for it, or it is not.

Beside the file lies ``<name>.head`` with the number of lines, the last hash and the size, so
that lines which are missing at the end are noticed. It is written after the line; a crash between
the two leaves a file that is one line longer, which is recognised. What a crash left of a line
stays in the file, and the next line says how much of it there is.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Annotated, Any, Generic, cast

from annotated_types import Ge

from client.chain.line import NOTHING, E, Format, Torn, line_of
from common.codec import read_json, record, write_json
from common.errors import ConfigError, DiskError
from common.files import flush_folder, make_folder
from common.secure_sum import Key


@record
class Head:
    """Where a file ends."""

    count: Annotated[int, Ge(0)] = 0
    """Lines, without those that a crash cut."""
    hash: Key = NOTHING
    bytes: Annotated[int, Ge(0)] = 0
    """Of the whole file."""


def head_file(path: Path) -> Path:
    """Return where the end of a file is written down."""
    return path.with_name(f"{path.stem}.head")


def now() -> str:
    """Return the time, UTC, as lines have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Held(Generic[E]):
    """A file that nobody else can append to while this is open."""

    path: Path
    format: Format[E]
    handle: int
    head: Head
    """Where the file ends now."""

    def append(self, entry: E) -> E:
        """Write an entry and flush it; its number, `previous` and `hash` are set here."""
        head = self.head
        placed = replace(cast("Any", entry), n=head.count + 1, previous=head.hash, hash=None)
        line, digest = line_of(placed)
        _append(self.handle, line + b"\n")
        size = os.fstat(self.handle).st_size
        self.head = Head(count=placed.n, hash=digest, bytes=size)
        _write_head(self.path, self.head)
        return cast("E", replace(placed, hash=digest))


def append(path: Path, entry: E, format_: Format[E]) -> E:
    """Write an entry and flush it to the disk.

    Args:
        path: the file; made, readable by this user only, if it is not there.
        entry: its number, `previous` and `hash` are set here.
        format_: of the file.

    Returns:
        The entry as it was written.

    Raises:
        ConfigError: when the file was shortened, or its head is gone: nothing is added then.
        DiskError: when the disk is full or the file cannot be written.
    """
    with held(path, format_, make=True) as file:
        return file.append(entry)


@contextmanager
def held(path: Path, format_: Format[E], *, make: bool) -> Iterator[Held[E]]:
    """Open a file for this process alone, after marking what a crash cut short.

    Args:
        path: the file.
        format_: of the file.
        make: whether to make it, readable by this user only, if it is not there.

    Raises:
        ConfigError: when the file was shortened, or its head is gone, or, unless `make`, the file.
        DiskError: when the disk is full or the file cannot be written.
    """
    try:
        with _locked(path, make=make) as handle:
            file = Held(path, format_, handle, _head(path, format_, os.fstat(handle).st_size, make))
            _recover(file)
            yield file
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a ledger, found none") from None
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error.strerror}") from None


@contextmanager
def _locked(path: Path, *, make: bool) -> Iterator[int]:
    """Open the file; two processes take turns."""
    if make:
        make_folder(path.parent)
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if make else 0)
    handle = os.open(path, flags, 0o600)
    try:
        flock(handle, LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _recover(file: Held[E]) -> None:
    """Go to where the file ends, after marking what a crash cut short."""
    path, head, size = file.path, file.head, os.fstat(file.handle).st_size
    if size < head.bytes:
        raise ConfigError(
            f"{path}: expected {head.bytes} bytes and {head.count} lines as {head_file(path).name} "
            f"says, found {size} bytes: lines are missing; {file.format.advice}"
        )
    tail = os.pread(file.handle, size - head.bytes, head.bytes) if size > head.bytes else b""
    if not tail:
        return
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    entry = file.format.entry_of(last) if file.format.is_whole(last) else None
    ended = tail.endswith(b"\n")
    if not ended:
        _append(file.handle, b"\n")
    if entry is not None and (entry.n, entry.previous) == (head.count + 1, head.hash):
        file.head = Head(count=entry.n, hash=entry.hash or NOTHING, bytes=size + (not ended))
        _write_head(path, file.head)
        return
    cut = tail if ended else tail + b"\n"
    torn = Torn(bytes=len(cut), sha256=hashlib.sha256(cut).hexdigest())
    file.append(file.format.marking(torn))


def _head(path: Path, format_: Format[E], size: int, make: bool) -> Head:
    if head_file(path).exists():
        return read_json(Head, head_file(path))
    if size or not make:
        raise ConfigError(
            f"{head_file(path)}: expected beside {path}, found none; {format_.advice}"
        )
    _write_head(path, Head())
    return Head()


def _write_head(path: Path, head: Head) -> None:
    """Write where the file ends; on the disk before anything else is appended."""
    write_json(head_file(path), head)
    flush_folder(path.parent)  # a new name is safe only with its folder


def _append(handle: int, content: bytes) -> None:
    """Write everything and flush it; an `OSError` may leave a part, which is marked later."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)
