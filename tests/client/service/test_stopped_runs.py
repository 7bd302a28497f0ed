"""Flower's own loop, state and store of a SuperNode; the coordinator and the app are played."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message.message import make_message
from flwr.common.constant import Status
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supernode import start_client_internal as start
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.egress.recording import install
from client.service import hooks

STOPPED, RESUMED = 1, 2
NODE, PATIENCE = 7, 5


class Ended(Exception):  # noqa: N818 - of the test
    """Nothing is left to do."""


def message_of(run: int) -> Message:
    kind = "query.measure"
    message = make_message(Metadata(run, "", 1, NODE, "", "", 0.0, 60.0, kind), RecordDict())
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


@dataclass
class Site:
    """A SuperNode with a coordinator whose first run stops while its message is received."""

    stops_in: str
    answers_first: bool = False
    messages: list[Message] = field(default_factory=lambda: [message_of(STOPPED)])
    sent: list[int] = field(default_factory=list)
    waits: int = 0

    def __post_init__(self) -> None:
        self.store = InMemoryObjectStore()
        self.state = InMemoryNodeState(self.store)
        for run in (STOPPED, RESUMED):
            self.state.store_run(Run.create_empty(run))
        self.objects = {
            id_: part.deflate()
            for message in (message_of(STOPPED), message_of(RESUMED))
            for id_, part in get_all_nested_objects(message).items()
        }

    def receive(self) -> tuple[Message, object] | None:
        if not self.messages:
            raise Ended
        message = self.messages.pop(0)
        return message, get_object_tree(message)

    def pull_object(self, run: int, id_: str) -> bytes:
        self._may_stop("pull_object", run)
        return self.objects[id_]

    def confirm(self, run: int, _: str) -> None:
        if self.answers_first and run == STOPPED:
            self.answer()
        self._may_stop("confirm", run)

    def _may_stop(self, call: str, run: int) -> None:
        if (call, run) == (self.stops_in, STOPPED):
            raise RunNotRunningException

    def answer(self) -> None:
        """Be the app: answer what waits."""
        for message in self.state.get_messages_legacy(is_reply=False):
            start._insert_message(Message(RecordDict(), reply_to=message), self.state, self.store)

    def send(self, message: Message, *_: object) -> tuple[set[str], str]:
        if message.metadata.run_id == STOPPED:
            raise RunNotRunningException
        self.sent.append(message.metadata.run_id)
        return set(), "session"

    def sleep(self, _: float) -> None:
        """Let the app work while the loop waits."""
        self.waits += 1
        if self.waits > PATIENCE:
            raise Ended
        self.answer()

    @contextmanager
    def connect(self, **_: object) -> Iterator[tuple[object, ...]]:
        calls = (self.receive, self.send, None, None, self.pull_object, None, self.confirm)
        yield (NODE, *calls)

    def run(self) -> None:
        factory = SimpleNamespace(
            state=lambda: self.state, objectstore_factory=SimpleNamespace(store=lambda: self.store)
        )
        with pytest.raises(Ended):
            start.start_client_internal(
                state_factory=factory, server_address="", node_config={}, isolation="process"
            )


@pytest.fixture
def play(monkeypatch, tmp_path) -> Callable[[Site], Site]:
    """Return a function that runs a site, hooked as `client.service.supernode` does it."""

    def run(site: Site, ledger: str = "egress.jsonl") -> Site:
        for name in ("_pull_and_store_message", "_push_messages"):
            monkeypatch.setattr(start, name, getattr(start, name))  # comes back
        monkeypatch.setattr(start, "register_signal_handlers", lambda **_: None)
        monkeypatch.setattr(start, "_init_connection", site.connect)
        monkeypatch.setattr(start, "time", SimpleNamespace(sleep=site.sleep))
        hooks.refuse_messages(2**20, lambda _: None)
        install(tmp_path / ledger)
        hooks.wait_for_own_replies()
        site.run()
        return site

    return run


def test_a_reply_to_a_stopped_run_does_not_hold_back_the_next_reply(play):
    site = Site(stops_in="confirm", answers_first=True)
    site.messages.append(message_of(RESUMED))
    assert play(site).sent == [RESUMED]


@pytest.mark.parametrize("call", ["pull_object", "confirm"])
def test_a_site_drops_what_it_was_receiving_when_the_run_stops(play, call):
    site = play(Site(stops_in=call))
    assert [task.status.status for task in site.state.get_tasks()] == [Status.FINISHED]
    assert site.state.get_messages_legacy() == []


def test_an_answer_that_could_not_be_recorded_is_not_waited_for(play):
    site = Site(stops_in="never")
    assert play(site, ledger="no/such/folder").sent == []
    assert site.messages == []
