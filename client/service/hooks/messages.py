"""What a message, or the bundle of its run, may not bring: it is answered by an error instead."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from client.service.bundle import defects
from client.service.hooks.parts import CONSILIUM_ERROR, RUN, START

BUNDLE, SIZE = "policy:bundle", "policy:size"  # common.errors.ErrorCode
AGENT = "flwr-agentapp"


class RefusedMessage(Exception):  # noqa: N818 - an answer, not a fault
    """A message, or the bundle of its run, that must not be stored or worked on."""

    def __init__(self, code: str, why: str) -> None:
        """Keep the code that the coordinator gets beside the words that stay here."""
        super().__init__(why)
        self.code = code


def refuse_messages(max_message_bytes: float, tell: Callable[[str], None]) -> None:
    """Answer a message that is too large, or whose run brings code, by an error; run nothing.

    Args:
        max_message_bytes: largest sum of what one message carries.
        tell: is given, in one line, what was refused and why.
    """
    start: Any = import_module(START)
    original = start._pull_and_store_message  # noqa: SLF001 - see the room's docstring

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
