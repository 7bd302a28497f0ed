"""How long a site waits before it asks the coordinator again: not long after it was last needed."""

from importlib import import_module
from typing import Any

from client.service.hooks.parts import START

SHARE_OF_IDLE = 1 / 20  # a wait makes an answer later by at most this share of what went before
SHORTEST_S = 0.5  # of 60 sites at once, 120 small requests per second
SHORTEST_HERE_S = 0.1  # for the site's own process, on the same machine


def look_again_soon() -> None:
    """Ask soon for the next message where one has just been worked on, and ever less often later.

    Flower waits 3 s whenever there is no message. The questions that open a secure sum take a site
    less than a second each, and every one of them waits for the last of the sites.
    """
    start: Any = import_module(START)
    pull, push = start._pull_and_store_message, start._push_messages  # noqa: SLF001 - see the room's docstring
    patience = Patience(start.time)
    start.time = patience

    def pull_noted(**arguments: Any) -> int | None:
        pulled: int | None = pull(**arguments)
        if pulled is not None:
            patience.needed()
        return pulled

    def push_noted(**arguments: Any) -> None:
        push(**arguments)
        patience.needed()

    start._pull_and_store_message = pull_noted  # noqa: SLF001 - as above
    start._push_messages = push_noted  # noqa: SLF001 - as above


class Patience:
    """The module `time` as Flower's loop sees it, with waits that are shorter after work."""

    def __init__(self, clock: Any) -> None:
        """Begin as if a message had just been worked on.

        Args:
            clock: the module `time`.
        """
        self._clock = clock
        self._last_s: float = clock.monotonic()

    def __getattr__(self, name: str) -> Any:
        """Return all else as the module has it."""
        return getattr(self._clock, name)

    def needed(self) -> None:
        """Note that a message was taken or answered."""
        self._last_s = self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait a share of the time since the last message, and `seconds` at most."""
        shortest_s = SHORTEST_S if seconds > SHORTEST_S else SHORTEST_HERE_S
        idle_s = self._clock.monotonic() - self._last_s
        self._clock.sleep(min(seconds, max(shortest_s, SHARE_OF_IDLE * idle_s)))
