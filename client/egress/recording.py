"""The hook in Flower's SuperNode: every answer is in the ledger before it is sent, or is not sent.

Flower sends answers in one place, `_push_messages` of its main loop, which names it by its module.
It is replaced by one that gives Flower's own a `send` which first writes the whole message down.
An error that Flower made of an exception, with its text, leaves as a code only.
"""

import functools
import inspect
import logging
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias, get_args

from flwr.app import Error, Message
from flwr.app.message.message import make_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id, iterate_object_tree
from flwr.supercore.object_store import ObjectStore
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate import NodeState

from client.egress.entry import Entry, SentObject
from client.egress.ledger import append, now
from client.egress.objects import sent_object
from client.egress.questions import question_of
from common.errors import ConfigError, ConsiliumError, ErrorCode

HOOK = "_push_messages"
ARGUMENTS = ["state", "object_store", "send", "push_object"]
FIRST_CODE_OF_OURS = 1000  # Flower keeps the numbers below for itself
POLL_S = 0.1  # between looks for objects that the app has not handed over yet
PATIENCE_S = 600.0  # without a new object, for example because the app was killed

Send: TypeAlias = Callable[[Message, ObjectTree, float], tuple[set[str], str]]
"""Flower's: (message, its objects, seconds of work) -> (objects that are wanted, session)."""
PushObject: TypeAlias = Callable[[int, str, str, bytes], None]
"""Flower's: (run, session, object, content)."""


class EgressError(ConsiliumError):
    """A message could not be written down; it was not sent."""


def install(ledger: Path) -> None:
    """Let every answer of the SuperNode in this process be recorded from now on.

    Args:
        ledger: file to append to; in the site's state folder, where the app leaves what it was
            asked (`client.egress.questions`).

    Raises:
        ConfigError: when the installed Flower sends its answers in another way.
    """
    original = _flowers_own()

    @functools.wraps(original)
    def push_recorded(
        state: NodeState, object_store: ObjectStore, send: Send, push_object: PushObject
    ) -> None:
        recording = _recording(ledger, object_store, send, push_object)
        original(state=state, object_store=object_store, send=recording, push_object=push_object)

    setattr(start_client_internal, HOOK, push_recorded)


def _flowers_own() -> Callable[..., None]:
    """Return what is replaced, also where it was replaced before."""
    found: Callable[..., None] = inspect.unwrap(
        getattr(start_client_internal, HOOK, None) or (lambda: None)
    )
    main_loop = getattr(start_client_internal, "start_client_internal", None)
    named = HOOK in getattr(getattr(main_loop, "__code__", None), "co_names", ())
    if not named or list(inspect.signature(found).parameters) != ARGUMENTS:
        raise ConfigError(
            f"flwr: expected {HOOK}({', '.join(ARGUMENTS)}) in flwr.supernode."
            "start_client_internal, found another; this version cannot write down what leaves the "
            "building, so nothing is started: install the version of Flower that the kit's "
            "package asks for"
        )
    return found


def _recording(ledger: Path, store: ObjectStore, send: Send, push_object: PushObject) -> Send:
    """Return a `send` that writes the message down first."""

    def send_recorded(message: Message, tree: ObjectTree, seconds: float) -> tuple[set[str], str]:
        if message.has_error():
            return _send_error(ledger, _without_text(message), send, push_object, seconds)
        _recorded(ledger, message, _contents(store, tree), seconds)
        return send(message, tree, seconds)

    return send_recorded


def _send_error(
    ledger: Path, error: Message, send: Send, push_object: PushObject, seconds: float
) -> tuple[set[str], str]:
    """Send an error whose object was made here, and not the one in the store."""
    content = error.deflate()
    id_ = error.metadata.message_id
    _recorded(ledger, error, iter([(id_, content)]), seconds)
    wanted, session = send(error, ObjectTree(object_id=id_), seconds)
    if id_ in wanted:
        push_object(error.metadata.run_id, session, id_, content)
    return set(), session


def _without_text(message: Message) -> Message:
    """Return an error with a code in the place of its text, under the number that belongs to it."""
    code, reason = message.error.code, message.error.reason
    if code < FIRST_CODE_OF_OURS:
        reason = f"flower-{code}"
    elif reason not in get_args(ErrorCode):
        reason = "internal"
    clean = make_message(metadata=deepcopy(message.metadata), error=Error(code, reason))
    clean.metadata.__dict__["_message_id"] = get_object_id(clean.deflate())  # it has no setter
    return clean


def _recorded(
    ledger: Path, message: Message, contents: Iterator[tuple[str, bytes]], seconds: float
) -> None:
    """Write a message down.

    Raises:
        EgressError: when that fails; Flower logs it and drops the message.
    """
    try:
        append(ledger, _entry(ledger, message, contents, seconds))
    except Exception as error:
        logging.getLogger("consilium.egress").exception(
            "%s: could not be written: NOTHING WAS SENT", ledger
        )
        raise EgressError(f"{ledger}: nothing was sent, for it could not be recorded") from error


def _entry(
    ledger: Path, message: Message, contents: Iterator[tuple[str, bytes]], seconds: float
) -> Entry:
    metadata = message.metadata
    objects = tuple(_checked(id_, content) for id_, content in contents)
    asked = question_of(ledger.parent, metadata.reply_to_message_id)
    return Entry(
        n=1,
        time=now(),
        kind=metadata.message_type.rpartition(".")[2],
        run=asked.run or str(metadata.run_id),
        method=asked.method,
        round=asked.round,
        error=message.error.reason if message.has_error() else None,
        bytes=sum(sent.bytes for sent in objects),
        seconds=seconds,
        objects=objects,
    )


def _checked(id_: str, content: bytes) -> SentObject:
    if get_object_id(content) != id_:
        raise EgressError(f"object {id_}: expected the SHA-256 of its content, found another")
    return sent_object(id_, content)


def _contents(store: ObjectStore, tree: ObjectTree) -> Iterator[tuple[str, bytes]]:
    """Yield every object of a message once, as soon as the app has handed it over.

    Raises:
        EgressError: when an object is gone, or does not come.
    """
    for id_ in dict.fromkeys(node.object_id for node in iterate_object_tree(tree)):
        deadline = time.monotonic() + PATIENCE_S
        while not (content := store.get(id_)):
            if content is None or time.monotonic() > deadline:
                raise EgressError(f"object {id_}: the app did not hand it over")
            time.sleep(POLL_S)
        yield id_, content
