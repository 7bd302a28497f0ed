"""One line of the egress ledger: a message that left the building, or was about to."""

import json
from typing import Annotated

from annotated_types import Ge
from pydantic import JsonValue, TypeAdapter

from client.chain.appending import now
from client.chain.line import NOTHING, RECOVERED, Format, Torn
from common.codec import record
from common.secure_sum import Key

__all__ = ["FORMAT", "RECOVERED", "WITHOUT_CONTENT", "Entry", "SentObject", "Torn", "records_of"]

WITHOUT_CONTENT = "ArrayChunk"  # Flower's name of pieces of weights


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


def _marking(torn: Torn) -> Entry:
    return Entry(n=1, time=now(), kind=RECOVERED, torn=torn)


FORMAT = Format(
    TypeAdapter(Entry),
    _marking,
    "show both files to your data-protection officer, then move them away and start again",
)


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
