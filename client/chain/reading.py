"""Read a chained file, and say what was done to it since it was written.

Line by line, so that the size of the file does not matter. The chain of hashes has no secret: it
shows every change by somebody who does not write all later lines and the head anew. Whoever keeps
the last hash elsewhere, on paper for example, notices that as well.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from client.chain.appending import Head, head_file
from client.chain.line import NOTHING, E, Format, hash_of
from common.codec import read_json
from common.errors import ConfigError
from common.secure_sum import Key


def read(path: Path, format_: Format[E]) -> Iterator[E]:
    """Yield the entries of a file in the order of its lines, without those that a crash cut.

    Raises:
        ConfigError: when there is no ledger that can be read.
    """
    for line in _lines(path):
        entry = format_.entry_of(line)
        if entry is not None:
            yield entry


def verify(path: Path, format_: Format[E]) -> tuple[str, ...]:
    """Return what is wrong with a file, one sentence per place; nothing if it is whole.

    Lines are counted in the file from 1. What a crash cut short, and the next line says, is not
    wrong; nor is a file whose head a crash left one line behind.

    Raises:
        ConfigError: when there is no ledger that can be read.
    """
    state = _Walk(format_)
    for number, line in enumerate(_lines(path), start=1):
        state.take(number, line)
    return (*state.found, *_wrong_at_the_end(path, state))


@dataclass
class _Walk(Generic[E]):
    """How far a file has been read, and what was found."""

    format: Format[E]
    count: int = 0
    last: Key = NOTHING
    before: Key = NOTHING
    """Hash of the entry before the last one."""
    found: list[str] = field(default_factory=list)
    torn: bytes = b""
    torn_at: int = 0

    def take(self, number: int, line: bytes) -> None:
        """Look at one line."""
        entry = self.format.entry_of(line)
        if entry is None:
            self.torn_at = self.torn_at or number
            self.torn += line + b"\n"
            return
        where = f"line {number}"
        self._take_torn(entry)
        if entry.hash is None or entry.hash != hash_of(line):
            self.found.append(f"{where}: was changed: its hash is not that of what it says")
        if entry.n > self.count + 1:
            gone = f"{self.count + 1} to {entry.n - 1}"
            self.found.append(f"{where}: expected entry {self.count + 1}: {gone} are missing")
        elif entry.n < self.count + 1:
            self.found.append(f"{where}: expected entry {self.count + 1}, found {entry.n}: moved")
        elif entry.previous != self.last:
            self.found.append(f"{where}: does not follow the line above, which was replaced")
        self.count, self.before, self.last = entry.n, self.last, entry.hash or NOTHING

    def _take_torn(self, entry: E) -> None:
        """Compare what cannot be read with what the line after it says of it."""
        said = (entry.torn.bytes, entry.torn.sha256) if entry.torn else (0, None)
        digest = hashlib.sha256(self.torn).hexdigest() if self.torn else None
        if said != (len(self.torn), digest):
            at = self.torn_at or "?"
            self.found.append(f"line {at}: cannot be read, and no crash explains it")
        self.torn, self.torn_at = b"", 0


def _wrong_at_the_end(path: Path, state: _Walk[E]) -> tuple[str, ...]:
    name = head_file(path).name
    if not head_file(path).exists():
        return (f"{name}: is missing: whether lines are missing at the end cannot be said",)
    head = read_json(Head, head_file(path))
    if (head.count, head.hash) in {(state.count, state.last), (state.count - 1, state.before)}:
        return ()
    if head.count > state.count:
        return (
            (
                f"the end: expected {head.count} entries as {name} says, found {state.count}: "
                "the last ones are missing"
            ),
        )
    return (f"the end: expected the end that {name} says, found another; lines were added",)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for line in file:
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: expected a ledger, found {error.strerror}") from None
