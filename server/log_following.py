"""Reading a log while it is written: only what was appended, by byte offset, in bounded pieces.

A last line without its end is waited for; `waiting_line` tells how it stands. Nothing is kept but
a `Position`: the line that is waited for is read again when there is more of it, unless it grows
too long for a line.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple

PIECE_BYTES = 4 * 2**20
MOST_LINE_BYTES = 2**20  # ten times the sums of 100 regions by 5 methods; less than a piece
HEAD_BYTES = 2048  # what is kept of a longer line
MARK_BYTES = 256  # compared to notice that a file was replaced


class Line(NamedTuple):
    """A line of a file, with its place."""

    number: int
    """From 1."""
    begin: int
    """Of its bytes in the file."""
    content: bytes
    """Without the line end; the beginning only of a line that is too long."""
    end: int
    """Behind its last byte, the line end not counted."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it was left out."""
        return self.end - self.begin == len(self.content)

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing, and hides nothing."""
        return self.is_whole and not self.content.strip()


@dataclass(frozen=True)
class Position:
    """Up to where a file was read; the beginning unless something else is said."""

    offset: int = 0
    """Of the first line that was not given out yet."""
    n_lines: int = 0
    """Before it."""
    n_skipped: int = 0
    """Bytes of that line that were looked at: it is too long and waits for its end."""
    first: bytes = b""
    """Bytes at the file's beginning, to know it again."""
    last: bytes = b""
    """Bytes before `offset`, as above."""


@dataclass(frozen=True)
class Piece:
    """Lines that are new."""

    position: Position
    lines: tuple[Line, ...]
    is_restart: bool
    """Whether the file is another one than before: what was read before does not count."""
    is_last: bool
    """Whether there is nothing more for now."""
    n_pending_bytes: int
    """Of a last line without its end."""


def pieces(path: Path, position: Position) -> Iterator[Piece]:
    """Yield everything that is new, in pieces; at least one, which may hold no lines.

    Raises:
        OSError: when the file cannot be read.
    """
    while True:
        piece = next_piece(path, position)
        yield piece
        if piece.is_last:
            return
        position = piece.position


def next_piece(path: Path, position: Position) -> Piece:
    """Read at most `PIECE_BYTES` behind a position; from the beginning if the file was replaced.

    Raises:
        OSError: when the file cannot be read.
    """
    with opened(path) as file:
        is_restart = not _is_known(file, position)
        if is_restart:
            position = Position()
        file.seek(position.offset + position.n_skipped)
        data = read_bytes(file, PIECE_BYTES)
        is_last = len(data) < PIECE_BYTES
        if position.n_skipped:
            moved, lines, n_pending = _behind_long_line(file, position, data)
        else:
            moved, lines, n_pending = _split(position, data)
        if moved.n_skipped and not position.n_skipped:
            n_pending = moved.n_skipped
        return Piece(_marked(file, moved), lines, is_restart, is_last, n_pending)


def waiting_line(path: Path, piece: Piece) -> Line | None:
    """Return the last line that has no end yet, as it stood when a piece was read; None without.

    Raises:
        OSError: when the file cannot be read.
    """
    n, begin = piece.n_pending_bytes, piece.position.offset
    if not n:
        return None
    with opened(path) as file:
        content = _at(file, begin, n if n <= MOST_LINE_BYTES else HEAD_BYTES)
    return Line(piece.position.n_lines + 1, begin, content, begin + n)


def opened(path: Path) -> IO[bytes]:
    """Open a file to read; what is no file, and could make a reader wait for ever, is an error."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a file")
    return os.fdopen(handle, "rb", buffering=0)


def _split(position: Position, data: bytes) -> tuple[Position, tuple[Line, ...], int]:
    """Cut whole lines off; what is left is pending, or a line that is too long."""
    *whole, rest = data.split(b"\n")
    lines, begin = [], position.offset
    for number, content in enumerate(whole, start=position.n_lines + 1):
        end = begin + len(content)
        lines.append(Line(number, begin, _kept(content), end))
        begin = end + 1
    skipped = len(rest) if len(rest) > MOST_LINE_BYTES else 0
    moved = replace(
        position, offset=begin, n_lines=position.n_lines + len(whole), n_skipped=skipped
    )
    return moved, tuple(lines), len(rest)


def _behind_long_line(
    file: IO[bytes], position: Position, data: bytes
) -> tuple[Position, tuple[Line, ...], int]:
    """Look for the end of a line that is too long, and go on behind it."""
    place = data.find(b"\n")
    if place < 0:
        skipped = position.n_skipped + len(data)
        return replace(position, n_skipped=skipped), (), skipped
    end = position.offset + position.n_skipped + place
    file.seek(position.offset)
    number = position.n_lines + 1
    long = Line(number, position.offset, read_bytes(file, HEAD_BYTES), end)
    behind = replace(position, offset=end + 1, n_lines=number, n_skipped=0)
    moved, lines, n_pending = _split(behind, data[place + 1 :])
    return moved, (long, *lines), n_pending


def _kept(content: bytes) -> bytes:
    return content if len(content) <= MOST_LINE_BYTES else content[:HEAD_BYTES]


def _is_known(file: IO[bytes], position: Position) -> bool:
    """Return whether a file still begins, and reads before the position, as it did."""
    return _at(file, 0, len(position.first)) == position.first and (
        _at(file, position.offset - len(position.last), len(position.last)) == position.last
    )


def _marked(file: IO[bytes], position: Position) -> Position:
    """Note what the file is known by."""
    n = min(MARK_BYTES, position.offset)
    first, last = _at(file, 0, n), _at(file, position.offset - n, n)
    return replace(position, first=first, last=last)


def _at(file: IO[bytes], offset: int, n: int) -> bytes:
    file.seek(offset)
    return read_bytes(file, n)


def read_bytes(file: IO[bytes], n: int) -> bytes:
    """Read so many bytes, less only at the end of the file."""
    parts, left = [], n
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
