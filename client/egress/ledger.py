"""Append to the ledger: the line is on the disk before anything is sent, or nothing is sent.

Beside the ledger lies ``<name>.head`` with the number of lines, the last hash and the size, so
that lines which are missing at the end are noticed. It is written after the line; a crash between
the two leaves a ledger that is one line longer, which is recognised. What a crash left of a line
stays in the file, and the next line says how much of it there is.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from client.egress.entry import NOTHING, RECOVERED, Entry, Torn, entry_of, is_whole, line_of
from common.codec import read_json, record, write_json
from common.errors import ConfigError, DiskError
from common.files import make_folder
from common.secure_sum import Key

ADVICE = "show both files to your data-protection officer, then move them away and start again"


@record
class Head:
    """Where a ledger ends."""

    count: Annotated[int, Ge(0)] = 0
    """Lines, without those that a crash cut."""
    hash: Key = NOTHING
    bytes: Annotated[int, Ge(0)] = 0
    """Of the whole file."""


def head_file(path: Path) -> Path:
    """Return where the end of a ledger is written down."""
    return path.with_name(f"{path.stem}.head")


def append(path: Path, entry: Entry) -> Entry:
    """Write an entry and flush it to the disk.

    Args:
        path: the ledger; made, readable by this user only, if it is not there.
        entry: its number, `previous` and `hash` are set here.

    Returns:
        The entry as it was written.

    Raises:
        ConfigError: when the ledger was shortened, or its head is gone: nothing is added then.
        DiskError: when the disk is full or the file cannot be written.
    """
    try:
        with _held(path) as handle:
            head = _recovered(path, handle)
            return _written(path, handle, head, entry)[0]
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error.strerror}") from None


def now() -> str:
    """Return the time, UTC, as lines have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """Open the ledger; two processes take turns."""
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        flock(handle, LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _recovered(path: Path, handle: int) -> Head:
    """Return where the ledger ends, after marking what a crash cut short."""
    head, size = _head(path, os.fstat(handle).st_size), os.fstat(handle).st_size
    if size < head.bytes:
        raise ConfigError(
            f"{path}: expected {head.bytes} bytes and {head.count} lines as {head_file(path).name} "
            f"says, found {size} bytes: lines are missing; {ADVICE}"
        )
    tail = os.pread(handle, size - head.bytes, head.bytes) if size > head.bytes else b""
    if not tail:
        return head
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    entry = entry_of(last) if is_whole(last) else None
    if entry is not None and (entry.n, entry.previous) == (head.count + 1, head.hash):
        ended = tail.endswith(b"\n")
        if not ended:
            _append(handle, b"\n")
        after = Head(count=entry.n, hash=entry.hash or NOTHING, bytes=size + (not ended))
        _write_head(path, after)
        return after
    return _marked(path, handle, head, tail)


def _marked(path: Path, handle: int, head: Head, tail: bytes) -> Head:
    """Add a line that says what was cut short."""
    if not tail.endswith(b"\n"):
        _append(handle, b"\n")
        tail += b"\n"
    torn = Torn(bytes=len(tail), sha256=hashlib.sha256(tail).hexdigest())
    return _written(path, handle, head, Entry(n=1, time=now(), kind=RECOVERED, torn=torn))[1]


def _head(path: Path, size: int) -> Head:
    if head_file(path).exists():
        return read_json(Head, head_file(path))
    if size:
        raise ConfigError(f"{head_file(path)}: expected beside {path}, found none; {ADVICE}")
    _write_head(path, Head())
    return Head()


def _write_head(path: Path, head: Head) -> None:
    """Write where the ledger ends; on the disk before anything else is appended."""
    write_json(head_file(path), head)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # a new name is safe only with its folder
    finally:
        os.close(folder)


def _written(path: Path, handle: int, head: Head, entry: Entry) -> tuple[Entry, Head]:
    placed = replace(entry, n=head.count + 1, previous=head.hash, hash=None)
    line, digest = line_of(placed)
    _append(handle, line + b"\n")
    after = Head(count=placed.n, hash=digest, bytes=os.fstat(handle).st_size)
    _write_head(path, after)
    return replace(placed, hash=digest), after


def _append(handle: int, content: bytes) -> None:
    """Write everything and flush it; an `OSError` may leave a part, which is marked later."""
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)
