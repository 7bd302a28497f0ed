"""No reply is left behind: what the coordinator waits for is sent before anything else is taken."""

from importlib import import_module
from typing import Any

from client.service.hooks.parts import START


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
