"""Messages to the sites and their replies, pulled one at a time: the loop below every round.

The coordinator holds one site's weights at once, however many sites there are; Flower's own
`send_and_receive` keeps all of them. A site whose process died is asked again while there is
time. What arrives after the deadline is not lost: it comes with the next question of its kind.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeAlias, TypeVar

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common.wire import n_bytes

P = TypeVar("P")
ContentsOf: TypeAlias = Callable[[Iterable[str]], Mapping[str, RecordDict]]
"""From sites to their messages."""
POLL_S = 0.5  # between looks for new replies
WORTH_COLLECTING = 2**24  # bytes of messages; Flower's records form cycles, which keep them
FIRST_CODE_OF_OURS = 1000  # Flower keeps the numbers below for itself


class Clock(Protocol):
    """What the loop needs of the module `time`; tests bring their own."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


@dataclass(frozen=True)
class Question(Generic[P]):
    """One message to one site."""

    site: str
    node: int
    action: str
    purpose: P
    """What was asked; comes back with the answer."""
    attempts_left: int = 0
    """How often it is sent again when the site's process died."""


class Mailbox(Generic[P]):
    """Sends questions over a Grid; remembers those that nobody answered in time."""

    def __init__(self, grid: Grid, clock: Clock = time) -> None:
        self._grid, self._clock = grid, clock
        self._late: dict[str, Question[P]] = {}

    @property
    def unanswered(self) -> Mapping[str, P]:
        """Sites that still owe an answer from before, and to what."""
        return {question.site: question.purpose for question in self._late.values()}

    def ask(
        self,
        questions: Mapping[str, Question[P]],
        contents_of: ContentsOf,
        timeout_s: float,
        late_s: float | None = None,
    ) -> Iterator[tuple[Question[P], Message | None]]:
        """Send one message per site, then yield each reply as it arrives.

        Args:
            questions: by site.
            contents_of: makes the messages of sites; not kept, but called again for those that
                are sent again.
            timeout_s: until when replies are waited for.
            late_s: how much longer a reply can still be of use in a later call; None if never.

        Yields:
            Question and reply; None where the time is over. Questions of earlier calls may be
            among them. A duplicate is yielded like any reply: who asked must count.
        """
        lifetime_s = timeout_s + (late_s or 0.0)
        pending = self._send(questions, contents_of, lifetime_s)
        deadline = self._clock.monotonic() + timeout_s
        actions = {question.action for question in questions.values()}
        while pending and self._clock.monotonic() < deadline:
            expected = {i: q for i, q in self._late.items() if q.action in actions} | pending
            found = False
            for message_id, message in self._pull(expected):
                found = True
                self._late.pop(message_id, None)
                question = pending.pop(message_id, expected[message_id])
                if question.attempts_left and _site_died(message):
                    again = replace(question, attempts_left=question.attempts_left - 1)
                    pending |= self._send({again.site: again}, contents_of, lifetime_s)
                else:
                    yield question, message
                del message  # before the next one is pulled
            if not found:
                self._clock.sleep(POLL_S)
        if late_s is not None:
            self._late |= pending
        for question in pending.values():
            yield question, None

    def _send(
        self,
        questions: Mapping[str, Question[P]],
        contents_of: ContentsOf,
        lifetime_s: float,
    ) -> dict[str, Question[P]]:
        ordered = sorted(questions.values(), key=lambda question: question.site)
        contents = contents_of(questions)
        messages = [
            Message(contents[question.site], question.node, question.action, ttl=lifetime_s)
            for question in ordered
        ]
        sent = dict(zip(self._grid.push_messages(messages), ordered, strict=True))
        if sum(map(n_bytes, contents.values())) > WORTH_COLLECTING:
            del contents, messages
            gc.collect()
        return sent

    def _pull(self, expected: Mapping[str, object]) -> Iterator[tuple[str, Message]]:
        for message_id in expected:
            replies = list(self._grid.pull_messages([message_id]))
            while replies:
                yield message_id, replies.pop(0)


def _site_died(message: Message) -> bool:
    """Return whether Flower, and not the site, says that there is no answer."""
    return message.has_error() and message.error.code < FIRST_CODE_OF_OURS
