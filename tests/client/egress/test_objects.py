"""What the ledger keeps of an object makes the same object again, byte by byte."""

import base64
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from client.egress.objects import sent_object
from common.errors import MessageError


def nested(message: Message) -> dict[str, bytes]:
    return {id_: obj.deflate() for id_, obj in get_all_nested_objects(message).items()}


CONFIGS = [
    {"json": b'{"round":3,"site":"K\xc3\xb6ln"}'},
    {"json": b"[]", "other": b""},
    {"text": "T\u00fcbingen", "count": 3, "share": 0.1, "yes": True},
    {"binary": b"\xff\x00\xfe", "many": [1, 2, 3], "words": ["a", "b"]},
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_record_can_be_made_again_from_what_is_kept(config):
    record = ConfigRecord(config)  # type: ignore[arg-type]
    kept = sent_object(record.object_id, record.deflate())
    assert (kept.kind, kept.bytes) == ("ConfigRecord", len(record.deflate()))
    assert isinstance(kept.content, dict)
    again = ConfigRecord({key: _again(value) for key, value in kept.content.items()})  # type: ignore[misc]
    assert again.object_id == record.object_id


def _again(kept: object) -> object:
    """Turn {type: value} back into the value."""
    assert isinstance(kept, dict)
    ((kind, value),) = kept.items()
    if kind == "bytes":
        return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])
    return value["vals"] if isinstance(value, dict) else value


@pytest.mark.parametrize("error", [None, Error(4100, "policy:task")])
def test_a_message_can_be_made_again_from_what_is_kept(answer_to, error: Error | None):
    content = RecordDict(
        {
            "body": ConfigRecord({"json": b"{}"}),
            "weights": ArrayRecord({"float32": Array(np.zeros(5, np.float32))}),
            "metrics": MetricRecord({"dice": 0.5, "n": [1, 2]}),
        }
    )
    message = answer_to("evaluate.test", error or content)
    objects = nested(message)
    kept = {id_: sent_object(id_, bytes_) for id_, bytes_ in objects.items()}
    told = kept[message.object_id].content
    assert told["metadata"] == {
        "run_id": 77,
        "src_node_id": 2,
        "dst_node_id": 1,
        "reply_to_message_id": "a" * 64,
        "ttl": message.metadata.ttl,
        "message_type": "evaluate.test",
        "created_at": message.metadata.created_at,
    }
    if error:
        assert told["error"] == {"code": 4100, "reason": "policy:task"}
        again = make_message(metadata=message.metadata, error=Error(**told["error"]))
        assert again.object_id == message.object_id
        return
    for id_, sent in kept.items():
        _, _, body = objects[id_].partition(b"\x00")
        if sent.kind in {"RecordDict", "ArrayRecord", "Array"}:
            assert json.dumps(sent.content).encode() == body
    (metrics,) = [sent.content for sent in kept.values() if sent.kind == "MetricRecord"]
    assert metrics == {"dice": {"double": 0.5}, "n": {"sint_list": {"vals": [1, 2]}}}
    (chunk,) = [sent for sent in kept.values() if sent.kind == "ArrayChunk"]
    assert chunk.content is None


def test_an_object_of_an_unknown_kind_is_not_passed_over():
    with pytest.raises(MessageError, match="found 'Portrait'"):
        sent_object("0" * 64, b"Portrait  3\x00abc")
