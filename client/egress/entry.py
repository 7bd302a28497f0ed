"""One line of the egress ledger: a message that left the building, or was about to.

A line is canonical JSON whose last field is the SHA-256 of everything before it, and whose field
before that is the hash of the line above: nothing can be changed, taken out or moved unnoticed.
"""

import hashlib
import json
from typing import Annotated

from annotated_types import Ge
from pydantic import JsonValue, TypeAdapter, ValidationError

from common.codec import canonical_json, record
from common.secure_sum import Key

NOTHING = "0" * 64  # the hash above the first line
RECOVERED = "recovered"  # kind of a line that marks what a crash cut short
WITHOUT_CONTENT = "ArrayChunk"  # Flower's name of pieces of weights
_HASH_FIELD = b',"hash":"'
_ENDING = len(_HASH_FIELD) + 64 + len(b'"}')


@record
class SentObject:
    """One of the objects that Flower makes of a message."""

    id: Key
    """SHA-256 of its bytes, which was computed here."""
    kind: str
    """Flower's class, for example ConfigRecord."""
    bytes: Annotated[int, Ge(0)]
    content: JsonValue = None
    """All that it holds; absent for pieces of arrays."""


@record
class Torn:
    """What a crash left of a line; nothing was sent for it."""

    bytes: Annotated[int, Ge(1)]
    sha256: Key


@record
class Entry:
    """What was sent. Stays at the site: it says when the hospital worked on what."""

    n: Annotated[int, Ge(1)]
    """Number of the line, from 1; cut lines are not counted."""
    time: str
    """UTC."""
    kind: str
    """What was answered (`client.policy.Action`), or `RECOVERED`."""
    run: str | None = None
    """Name of the run, or Flower's number of it where the name is not known."""
    method: str | None = None
    round: int | None = None
    error: str | None = None
    """Code, where the answer is one."""
    bytes: Annotated[int, Ge(0)] = 0
    """Of all objects."""
    seconds: float | None = None
    """That the work took; Flower tells the coordinator."""
    objects: tuple[SentObject, ...] = ()
    """Each once. The coordinator fetches those that it does not have."""
    torn: Torn | None = None
    previous: Key = NOTHING
    """Hash of the line above."""
    hash: Key | None = None
    """Of this line, without this field."""


_ENTRY = TypeAdapter(Entry)


def line_of(entry: Entry) -> tuple[bytes, Key]:
    """Return the line of an entry without its end, and its hash."""
    text = canonical_json(entry)
    digest = hashlib.sha256(text).hexdigest()
    return text[:-1] + _HASH_FIELD + digest.encode() + b'"}', digest


def entry_of(line: bytes) -> Entry | None:
    """Return the entry of a line, whether or not its hash is right; None if it holds none."""
    try:
        return _ENTRY.validate_json(line)
    except ValidationError:
        return None


def hash_of(line: bytes) -> Key | None:
    """Return the hash that a line, without its end, should carry; None if it is no whole line."""
    if not line.startswith(b"{") or line[-_ENDING:][: len(_HASH_FIELD)] != _HASH_FIELD:
        return None
    return hashlib.sha256(line[:-_ENDING] + b"}").hexdigest()


def is_whole(line: bytes) -> bool:
    """Return whether a line, without its end, holds an entry with the right hash."""
    entry = entry_of(line)
    return entry is not None and entry.hash is not None and entry.hash == hash_of(line)


def records_of(entry: Entry) -> dict[str, object]:
    """Return the records of a message by name, decoded: what was told, apart from weights."""
    by_id = {sent.id: sent for sent in entry.objects}
    names = next((s.content for s in entry.objects if s.kind == "RecordDict"), None)
    found: dict[str, object] = {}
    for name, id_ in names.items() if isinstance(names, dict) else ():
        sent = by_id.get(str(id_))
        if sent is not None:
            found[name] = _decoded(sent.content)
    return found


def _decoded(content: JsonValue) -> object:
    """Return what our own records hold in JSON, or the content as it is."""
    if isinstance(content, dict) and content.keys() == {"json"}:
        value = content["json"]
        text = value.get("bytes") if isinstance(value, dict) else None
        if isinstance(text, str):
            try:
                return json.loads(text)
            except ValueError:
                return text
    return content
