"""The in-process grid with simulated time: a site's answer comes when it would have come.

When it is due is known from the question, so a site works only once its answer is due: one reply
is in memory at a time, as without a clock.
"""

from collections.abc import Callable, Iterable, Mapping

from flwr.app import Message
from flwr.clientapp import ClientApp

from common.errors import MessageError
from common.messages import Prepared, TrainTask
from common.wire import body_of
from simulation.clock import SimulatedClock, Speed, training_seconds
from simulation.grid import InProcessGrid


class TimedGrid(InProcessGrid):
    """Carries messages to a ClientApp in this process; what sites train takes simulated time."""

    def __init__(
        self,
        app: ClientApp,
        node_configs: Mapping[int, Mapping[str, str]],
        clock: SimulatedClock,
        speeds: Mapping[int, tuple[str, Speed]],
        n_trained: Callable[[int], float],
        seed: int,
    ) -> None:
        """Make one node per entry of `node_configs`.

        Args:
            app: the unmodified ClientApp.
            node_configs: node configuration by node number, above 0.
            clock: which the coordinator waits by.
            speeds: name and speed of each node's site.
            n_trained: with how many cases, times epochs, a site of so many trains in a round.
            seed: of the run.
        """
        super().__init__(app, node_configs)
        self._clock, self._speeds, self._n_trained, self._seed = clock, speeds, n_trained, seed
        self._due: dict[str, float] = {}
        self._prepared: dict[int, Prepared] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are due and pulled."""
        ids = list(super().push_messages(messages))
        for message_id in ids:
            message = self._waiting[message_id]
            self._due[message_id] = self._clock.monotonic() + self._seconds(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the sites whose answers are due answer."""
        now = self._clock.monotonic()
        for message_id in message_ids:
            if message_id not in self._waiting or self._due[message_id] > now:
                continue
            node = self._waiting[message_id].metadata.dst_node_id
            for reply in super().pull_messages([message_id]):
                self._remember(node, reply)
                yield reply

    def _seconds(self, message: Message) -> float:
        """Return how long the answer takes; only training does, by the challenge's rules."""
        node = message.metadata.dst_node_id
        if message.metadata.message_type != "train" or node not in self._prepared:
            return 0.0
        self._clock.begin_round()
        (site, speed), prepared = self._speeds[node], self._prepared[node]
        task = body_of(TrainTask, message.content)
        n_trained = self._n_trained(prepared.n_training_cases)
        n_validated = prepared.n_validation_cases
        return training_seconds(speed, n_trained, n_validated, self._seed, site, task.round)

    def _remember(self, node: int, reply: Message) -> None:
        """Learn from the answer to `prepare` how many cases a site has."""
        if reply.metadata.message_type != "query.prepare" or reply.has_error():
            return
        try:
            self._prepared[node] = body_of(Prepared, reply.content)
        except MessageError:  # the coordinator will say so
            return
