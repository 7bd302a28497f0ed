"""Flower's Grid in one process: messages go straight to the same ClientApp.

One persistent context per site, no sockets, no threads, and one reply at a time: a message is
answered when its reply is pulled. Relies on Flower's `TaskIdentity`, which `Message` reads.
"""

from collections.abc import Iterable, Mapping
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity


class InProcessGrid(Grid):
    """Carries messages to a ClientApp in this process."""

    def __init__(self, app: ClientApp, node_configs: Mapping[int, Mapping[str, str]]) -> None:
        """Make one node per entry.

        Args:
            app: the unmodified ClientApp.
            node_configs: node configuration by node number, above 0.
        """
        self._app = app
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config=dict(config),
                state=RecordDict(),
                run_config={},
            )
            for node, config in node_configs.items()
        }
        self._waiting: dict[str, Message] = {}
        TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    def set_run(self, run: Run) -> None:
        """Refuse: there is one run."""
        raise NotImplementedError("the in-process grid has one run")

    @property
    def run(self) -> Run:
        """Refuse: there is no run information."""
        raise NotImplementedError("the in-process grid has no run information")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message (Flower's older spelling of `Message(...)`)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all node numbers: the sites of a simulation are always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled."""
        ids = []
        for message in messages:
            message_id = str(uuid4())
            message.metadata.__dict__["_message_id"] = message_id  # Flower gives no setter
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Let the sites answer the messages, one after the other."""
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                yield self._app(message, self._contexts[message.metadata.dst_node_id])

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return all replies; there is nothing to wait for."""
        del timeout
        return list(self.pull_messages(self.push_messages(messages)))
