"""What is in the objects that Flower makes of a message, as text that a person can read.

Everything but the pieces of arrays is given in full: the object can be made again from it, byte by
byte, and its hash with it (`tests/client/egress/test_objects.py` does so).
"""

import base64
import json
from collections.abc import Callable
from typing import Any

from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.recorddict_pb2 import ConfigRecord, MetricRecord
from pydantic import JsonValue

from client.egress.entry import WITHOUT_CONTENT, SentObject
from common.errors import MessageError

DIVIDER = b"\x00"  # between Flower's head of an object and its body


def sent_object(id_: str, content: bytes) -> SentObject:
    """Describe one object.

    Args:
        id_: SHA-256 of its bytes.
        content: its bytes, as they are sent.

    Raises:
        MessageError: for an object of a kind that is not known: it cannot be written down.
    """
    head, _, body = content.partition(DIVIDER)
    kind = head.decode().split(" ")[0]
    if kind == WITHOUT_CONTENT:
        return SentObject(id=id_, kind=kind, bytes=len(content))
    if kind not in READERS:
        raise MessageError(f"object {id_}: expected one of {', '.join(READERS)}, found {kind!r}")
    return SentObject(id=id_, kind=kind, bytes=len(content), content=READERS[kind](body))


def _plain(body: bytes) -> JsonValue:
    """Return what Flower keeps as JSON: names and numbers of other objects, shapes."""
    found: JsonValue = json.loads(body)
    return found


def _record_of(kind: Any) -> Callable[[bytes], JsonValue]:
    """Return what reads a record: its values by name and type."""
    return lambda body: {item.key: _fields(item.value) for item in kind.FromString(body).items}


def _fields(proto: Any) -> JsonValue:
    """Return every field that is set, by name."""
    return {field.name: _value(value) for field, value in proto.ListFields()}


def _value(value: Any) -> JsonValue:
    """Return a field's value; bytes as text where they are text."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if hasattr(value, "ListFields"):
        return _fields(value)
    if isinstance(value, str | int | float):
        return value
    return [_value(item) for item in value]


READERS: dict[str, Callable[[bytes], JsonValue]] = {
    "Message": lambda body: _fields(MessageProto.FromString(body)),
    "RecordDict": _plain,
    "ArrayRecord": _plain,
    "Array": _plain,
    "ConfigRecord": _record_of(ConfigRecord),
    "MetricRecord": _record_of(MetricRecord),
}
