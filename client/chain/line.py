"""One line of a chained file.

A line is canonical JSON whose last field is the SHA-256 of everything before it, and whose field
before that is the hash of the line above: nothing can be changed, taken out or moved unnoticed.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError

from common.codec import canonical_json, record
from common.secure_sum import Key

NOTHING = "0" * 64  # the hash above the first line
RECOVERED = "recovered"  # kind of a line that marks what a crash cut short
_HASH_FIELD = b',"hash":"'
_ENDING = len(_HASH_FIELD) + 64 + len(b'"}')


@record
class Torn:
    """What a crash left of a line; nothing was done for it."""

    bytes: Annotated[int, Ge(1)]
    sha256: Key


class Chained(Protocol):
    """What the record of a line has; `previous` and `hash` are its last fields, in this order."""

    @property
    def n(self) -> int:
        """Number of the line, from 1; cut lines are not counted."""

    @property
    def torn(self) -> Torn | None:
        """What was cut short above; None for every other line."""

    @property
    def previous(self) -> Key:
        """Hash of the line above."""

    @property
    def hash(self) -> Key | None:
        """Of this line, without this field."""


E = TypeVar("E", bound=Chained)


@dataclass(frozen=True)
class Format(Generic[E]):
    """What the lines of one kind of file hold."""

    entry: TypeAdapter[E]
    marking: Callable[[Torn], E]
    """Makes the line that marks what a crash cut short."""
    advice: str
    """What a person does when lines are missing."""

    def entry_of(self, line: bytes) -> E | None:
        """Return the entry of a line, whether or not its hash is right; None if it holds none."""
        try:
            return self.entry.validate_json(line)
        except ValidationError:
            return None

    def is_whole(self, line: bytes) -> bool:
        """Return whether a line, without its end, holds an entry with the right hash."""
        entry = self.entry_of(line)
        return entry is not None and entry.hash is not None and entry.hash == hash_of(line)


def line_of(entry: Chained) -> tuple[bytes, Key]:
    """Return the line of an entry, whose `hash` is None, without its end, and its hash."""
    text = canonical_json(entry)
    digest = hashlib.sha256(text).hexdigest()
    return text[:-1] + _HASH_FIELD + digest.encode() + b'"}', digest


def hash_of(line: bytes) -> Key | None:
    """Return the hash that a line, without its end, should carry; None if it is no whole line."""
    if not line.startswith(b"{") or line[-_ENDING:][: len(_HASH_FIELD)] != _HASH_FIELD:
        return None
    return hashlib.sha256(line[:-_ENDING] + b"}").hexdigest()
