"""A SuperNode's state, store and connection, without its network: Flower's own classes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.egress.recording import install
from common.messages import Update
from common.wire import to_content

WEIGHTS = {"w": np.arange(60, dtype=np.float32).reshape(3, 20)}
UPDATE = Update(round=3, n_cases=4, n_steps=2, loss=0.5, seconds=1.0)


def asked(kind: str = "train") -> Message:
    """Return a question of the coordinator as the app sees it."""
    metadata = Metadata(
        run_id=77,
        message_id="a" * 64,
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=1_790_000_000.0,
        ttl=1e9,
        message_type=kind,
        src_task_id=None,
        dst_task_id=None,
    )
    return make_message(metadata=metadata, content=RecordDict())


@dataclass
class Node:
    """Flower's state and store, and a coordinator that wants every object that it has not seen."""

    ledger: Path
    state: InMemoryNodeState
    store: InMemoryObjectStore
    sent: list[Message] = field(default_factory=list)
    received: dict[str, bytes] = field(default_factory=dict)
    lines_before_send: list[int] = field(default_factory=list)

    def reply(self, answer: Message, put: bool = True) -> dict[str, bytes]:
        """Hand an answer over as Flower's app process does; give its objects."""
        answer.metadata.__dict__["_message_id"] = answer.object_id
        contents = {i: o.deflate() for i, o in get_all_nested_objects(answer).items()}
        self.store.preregister(77, get_object_tree(answer))
        for id_, content in contents.items() if put else ():
            self.store.put(id_, content)
        self.state.store_message(answer)
        return contents

    def push(self) -> None:
        """Let Flower's main loop send what is there."""
        start_client_internal._push_messages(
            state=self.state, object_store=self.store, send=self._send, push_object=self._take
        )

    def _send(self, message: Message, tree: ObjectTree, _: float) -> tuple[set[str], str]:
        self.lines_before_send.append(len(self.ledger.read_bytes().splitlines()))
        self.sent.append(message)
        ids: Iterable[str] = (node.object_id for node in iterate_object_tree(tree))
        return {id_ for id_ in ids if id_ not in self.received}, "session"

    def _take(self, run_id: int, session: str, object_id: str, content: bytes) -> None:
        assert (run_id, session) == (77, "session")
        self.received[object_id] = content


@pytest.fixture
def make_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Node]]:
    """Return what starts a SuperNode with a ledger, as often as wanted."""
    flowers_own = start_client_internal._push_messages
    monkeypatch.setattr(start_client_internal, "_push_messages", flowers_own)  # comes back

    def make(ledger: Path) -> Node:
        install(ledger)
        store = InMemoryObjectStore()
        state = InMemoryNodeState(store)
        state.set_node_id(2)
        state.record_message_processing_start("a" * 64)
        state.record_message_processing_end("a" * 64)
        return Node(ledger, state, store)

    return make


@pytest.fixture
def node(make_node: Callable[[Path], Node], tmp_path: Path) -> Node:
    return make_node(tmp_path / "state" / "egress.jsonl")


@pytest.fixture
def update() -> Message:
    """Return the answer of a round: a record, an index and weights."""
    return Message(to_content(UPDATE, WEIGHTS), reply_to=asked())


@pytest.fixture
def answer_to() -> Callable[..., Message]:
    """Return what answers a question of a kind with a record or an error."""

    def answer(kind: str, answer: object) -> Message:
        content = answer if not hasattr(answer, "__dataclass_fields__") else to_content(answer)
        return Message(content, reply_to=asked(kind))  # type: ignore[arg-type]

    return answer
