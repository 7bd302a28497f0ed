"""Every private part of Flower that the site's service takes hold of, in one place.

Flower offers no way to refuse a bundle that carries code, no sign of life, and no executor of one's
own. Each hook is looked for before anything starts; without it the site does not start.
"""

import inspect
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from client.service.bundle import defects
from common.errors import ConfigError

CONSILIUM_ERROR = 4100  # as client.app answers; that imports torch
BUNDLE, SIZE = "policy:bundle", "policy:size"  # common.messages.ErrorCode
AGENT = "flwr-agentapp"
START, CONNECTION = "flwr.supernode.start_client_internal", "flwr.supernode.fleet_http_connection"
CLIENT, EXECUTION = "flwr.supernode.fleet_http_client", "flwr.supercore.superexec.run_superexec"
TASK, ENDING = "flwr.supernode.runtime.run_clientapp", "flwr.supercore.exit.exit_handler"
STATE, RUN = "flwr.supernode.nodestate.in_memory_nodestate", "flwr.supercore.run"
NOT_KNOWN = {401, 403}  # by the gate or the SuperLink: trying twice does not help
ABSENT_S = 6.0  # the coordinator asks for replies every few seconds

HOOKS: tuple[tuple[str, str, frozenset[str]], ...] = (
    (
        START,
        "_pull_and_store_message",
        frozenset({"state", "object_store", "receive", "get_run", "get_fab", "pull_object"})
        | {"confirm_message_received"},
    ),
    (START, "_push_messages", frozenset({"state"})),
    (STATE, "InMemoryNodeState.get_messages_legacy", frozenset({"is_reply"})),
    (START, "_insert_message", frozenset({"msg", "state", "store"})),
    (CLIENT, "FleetHttpClient.SendNodeHeartbeat", frozenset({"request"})),
    (CLIENT, "FleetHttpClient.ActivateNode", frozenset({"request"})),
    (CLIENT, "FleetHttpClient.DeactivateNode", frozenset({"request"})),
    (CONNECTION, "make_simple_http_retry_invoker", frozenset()),
    ("flwr.supernode.cli.flower_supernode", "flower_supernode", frozenset()),
    (EXECUTION, "get_executor", frozenset({"executor_type"})),
    (EXECUTION, "run_superexec", frozenset({"runtime_api_address", "superexec_auth_secret"})),
    (TASK, "run_clientapp", frozenset({"runtime_api_address", "token", "insecure", "parent_pid"})),
    (TASK, "push_message", frozenset({"client", "message", "context"})),
)
"""Module, function, and the arguments by which we call or replace it."""


class RefusedMessage(Exception):  # noqa: N818 - an answer, not a fault
    """A message, or the bundle of its run, that must not be stored or worked on."""

    def __init__(self, code: str, why: str) -> None:
        """Keep the code that the coordinator gets beside the words that stay here."""
        super().__init__(why)
        self.code = code


def demand_hooks() -> None:
    """Demand that the installed Flower is built as this package expects.

    Raises:
        ConfigError: with one line per part that is missing or called differently.
    """
    lacking = [line for hook in HOOKS if (line := _lacking(*hook))]
    if not isinstance(getattr(import_module(ENDING), "registered_exit_handlers", None), list):
        lacking.append(f"{ENDING}.registered_exit_handlers: expected a list")
    if not hasattr(import_module(RUN), "RunNotRunningException"):
        lacking.append(f"{RUN}.RunNotRunningException: expected a class, found none")
    if lacking:
        lines = "\n".join(lacking)
        raise ConfigError(
            f"{lines}\nthe installed Flower does not fit this package: expected flwr>=1.41,<1.43"
        )


def _lacking(module: str, path: str, arguments: frozenset[str]) -> str | None:
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        missing = arguments - set(inspect.signature(found).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return f"{module}.{path}: expected a function, found none"
    return f"{module}.{path}: expected the arguments {sorted(missing)}" if missing else None


def refuse_messages(max_message_bytes: float, tell: Callable[[str], None]) -> None:
    """Answer a message that is too large, or whose run brings code, by an error; run nothing.

    Args:
        max_message_bytes: largest sum of what one message carries.
        tell: is given, in one line, what was refused and why.
    """
    start: Any = import_module(START)
    original = start._pull_and_store_message  # noqa: SLF001 - see the module's docstring

    def pull(**arguments: Any) -> int | None:
        guard = _Guard(arguments, max_message_bytes)
        try:
            pulled: int | None = original(**{**arguments, **guard.replaced()})
        except RefusedMessage as error:  # of the run
            guard.refusal = error
            pulled = None
        if guard.refusal is None:
            return pulled
        message = guard.received[0]
        tell(f"run {message.metadata.run_id} refused: {guard.refusal}")
        _answer(guard.refusal.code, message, arguments["state"], arguments["object_store"])
        return int(message.metadata.run_id)

    start._pull_and_store_message = pull  # noqa: SLF001 - as above


class _Guard:
    """Looks at everything that one message brings before Flower stores it."""

    def __init__(self, arguments: dict[str, Any], max_bytes: float) -> None:
        self.calls, self.left_bytes = arguments, max_bytes
        self.received: Any = None
        self.refusal: RefusedMessage | None = None

    def replaced(self) -> dict[str, Any]:
        """Return the calls to the coordinator, each with its check."""
        return {
            "receive": self._receive,
            "get_run": self._get_run,
            "get_fab": self._get_bundle,
            "pull_object": _failing_when_stopped(self._pull_object),
            "confirm_message_received": _failing_when_stopped(
                self.calls["confirm_message_received"]
            ),
        }

    def _receive(self) -> Any:
        self.received = self.calls["receive"]()
        return self.received

    def _get_run(self, run_id: int) -> Any:
        """Return a run of ours; Flower would start its agents at a site as well."""
        run = self.calls["get_run"](run_id)
        if run.primary_task_type == AGENT:
            raise RefusedMessage(BUNDLE, "expected a federated run, found an agent")
        return run

    def _get_bundle(self, *which: Any) -> Any:
        bundle = self.calls["get_fab"](*which)
        if found := defects(bundle.content):
            raise RefusedMessage(BUNDLE, "its bundle: " + "; ".join(found))
        return bundle

    def _pull_object(self, run_id: int, object_id: str) -> Any:
        """Return a part of the message; Flower itself drops the message when this fails."""
        content = self.calls["pull_object"](run_id, object_id)
        self.left_bytes -= len(content)
        if self.left_bytes < 0:
            self.refusal = RefusedMessage(SIZE, "its message is larger than the kit allows")
            raise self.refusal
        return content


def _answer(code: str, message: Any, state: Any, store: Any) -> None:
    app: Any = import_module("flwr.app")
    start: Any = import_module(START)
    reply = app.Message(app.Error(CONSILIUM_ERROR, code), reply_to=message)
    start._insert_message(reply, state, store)  # noqa: SLF001 - as above


def _failing_when_stopped(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call that fails like any other when the run has stopped.

    Flower drops a message, and ends its task, when a part of it cannot be received. That the run
    has stopped is no `Exception` and passes by there: the task would work on for nobody.
    """
    stopped = import_module(RUN).RunNotRunningException

    def checked(*which: Any) -> Any:
        try:
            return call(*which)
        except stopped:
            raise RuntimeError("its run has stopped") from None

    return checked


def wait_for_own_replies() -> None:
    """Send replies until the one to the message taken last is among them.

    Flower sends what it finds first and then takes the next message, before which it sends nothing
    more. A reply that was left over, as to a run that stopped while its message was received, would
    go in the place of the true one. That would lie here until the next message, which the
    coordinator does not send, for it waits for the true one. To be called after the recording of
    answers is installed, which replaces Flower's own function and nobody else's.
    """
    start: Any = import_module(START)
    pull, push = start._pull_and_store_message, start._push_messages  # noqa: SLF001 - as above
    taken: set[str] = set()

    def pull_noted(**arguments: Any) -> int | None:
        def receive() -> Any:
            if received := arguments["receive"]():
                taken.clear()
                taken.add(received[0].metadata.message_id)
            return received

        pulled: int | None = pull(**{**arguments, "receive": receive})
        return pulled

    def push_until_replied(**arguments: Any) -> None:
        noting = _NotingState(arguments["state"])
        while not taken <= noting.replied_to:
            push(**{**arguments, "state": noting})

    start._pull_and_store_message = pull_noted  # noqa: SLF001 - as above
    start._push_messages = push_until_replied  # noqa: SLF001 - as above


class _NotingState:
    """A SuperNode's state that notes to which messages it gave replies, sent or failed."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self.replied_to: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_messages_legacy(self, **which: Any) -> Any:
        replies = self._state.get_messages_legacy(**which)
        self.replied_to |= {reply.metadata.reply_to_message_id for reply in replies}
        return replies


def keep_pulse(pulse: Path) -> None:
    """Touch a file at every heartbeat that the coordinator answers, and never stop trying.

    Flower's thread of heartbeats ends for good at an answer that it does not know, and the site
    looks dead ever after while it polls on. Here such an answer counts as a failed connection, and
    a coordinator that has forgotten this node ends the process, so that it signs on anew.
    """
    fleet: Any = import_module(CLIENT).FleetHttpClient
    httpx: Any = import_module(CONNECTION).httpx
    original = fleet.SendNodeHeartbeat

    def beat(self: Any, request: Any) -> Any:
        try:
            response = original(self, request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.UNAUTHORIZED:
                raise  # Flower then ends the process
            raise httpx.ReadError(str(error.response.status_code)) from None
        if not response.success:
            os.kill(os.getpid(), signal.SIGTERM)
            raise httpx.ReadError("this node is not known")
        pulse.touch()
        return response

    fleet.SendNodeHeartbeat = beat


def sign_off_before_signing_on(node: Path) -> None:
    """Let a site come back at once after its process was killed.

    The coordinator takes a node that fell silent for present, for about a minute, and does not let
    it sign on again. Here it is signed off first, by the number that it had; then, for a moment,
    the coordinator can see that what it had asked of the dead process will not be answered.

    Args:
        node: file that keeps this node's number.
    """
    fleet: Any = import_module(CLIENT).FleetHttpClient
    httpx: Any = import_module(CONNECTION).httpx
    request_off: Any = import_module("flwr.proto.fleet_pb2").DeactivateNodeRequest
    original = fleet.ActivateNode

    def activate(self: Any, request: Any) -> Any:
        try:
            response = original(self, request)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in NOT_KNOWN or not node.exists():
                raise
            with suppress(httpx.HTTPError):
                self.DeactivateNode(request_off(node_id=int(node.read_text())))
            time.sleep(ABSENT_S)
            response = original(self, request)
        node.write_text(str(response.node_id))
        return response

    fleet.ActivateNode = activate


def keep_trying() -> None:
    """Go on after a time-out of the TLS handshake, which Flower takes for a wrong certificate."""
    connection: Any = import_module(CONNECTION)
    httpx: Any = connection.httpx
    original = connection.make_simple_http_retry_invoker

    def make() -> Any:
        invoker = original()
        gives_up = invoker.should_giveup
        invoker.should_giveup = lambda error: (
            not isinstance(error, httpx.TimeoutException) and gives_up(error)
        )
        return invoker

    connection.make_simple_http_retry_invoker = make


def without_words(code: int, reason: str | None) -> str:
    """Return what of an error may leave: our own codes, nothing of Flower's texts."""
    return reason or "" if code == CONSILIUM_ERROR else ""


def silence_errors() -> None:
    """Take the text out of errors that Flower itself makes of a task; it may hold paths."""
    task: Any = import_module(TASK)
    app: Any = import_module("flwr.app")
    original = task.push_message

    def push(client: Any, message: Any, context: Any) -> None:
        if message.has_error():
            error = message.error
            message.error = app.Error(error.code, without_words(error.code, error.reason))
        original(client, message, context)

    task.push_message = push


def forget_endings() -> None:
    """Drop what the parent registered to be done at its end; for a process just forked."""
    import_module(ENDING).registered_exit_handlers.clear()
