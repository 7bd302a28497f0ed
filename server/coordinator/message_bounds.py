"""What a site may push: answers of its own, none larger than the federation agreed on.

Flower asks neither. It takes a message for an instruction to other sites when it names no message
that it answers, and it takes a message's chunks, each a request of its own, without an end.
"""

from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from google.protobuf.message import DecodeError

from server.coordinator.refusals import TOO_LARGE, RefusalError

LEAST_BYTES = 1024  # what a chunk counts at least: their number is bounded as well


def demand_own_answer(body: bytes, site: str) -> None:
    """Demand that a request pushes one answer of the node that signed it.

    Raises:
        RefusalError: for an instruction, for another node's answer, or for no message.
    """
    says = f"site {site} may push one answer of its own at a time, and nothing else"
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        raise RefusalError("not-for-sites", says, site) from None
    if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
        raise RefusalError("not-for-sites", says, site)
    metadata = request.messages_list[0].metadata
    own = metadata.src_node_id == request.node.node_id != SUPERLINK_NODE_ID
    if not metadata.reply_to_message_id or not own or metadata.dst_node_id != SUPERLINK_NODE_ID:
        raise RefusalError("not-for-sites", says, site)


class PushedBytes:
    """Adds up the chunks that each site pushed for its current message."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._chunks: dict[str, dict[str, int]] = {}
        self._totals: dict[str, int] = {}

    def begin(self, site: str) -> None:
        """A site's next message was accepted; its chunks follow."""
        self._chunks[site], self._totals[site] = {}, 0

    def add(self, site: str, body: bytes, max_bytes: int) -> None:
        """Count a chunk, once however often it comes.

        Raises:
            RefusalError: when the message became too large.
        """
        try:
            chunk = PushObjectRequest.FromString(body)
        except DecodeError:
            raise RefusalError("not-for-sites", "expected a chunk of a message", site) from None
        chunks = self._chunks.setdefault(site, {})
        n_bytes = max(len(chunk.object_content), LEAST_BYTES)
        total = self._totals.get(site, 0) + n_bytes - chunks.get(chunk.object_id, 0)
        if total > max_bytes:
            raise too_large(max_bytes, site)
        chunks[chunk.object_id], self._totals[site] = n_bytes, total


def too_large(max_bytes: int, site: str | None) -> RefusalError:
    """Return the refusal of a message, or of a request, beyond the agreed size."""
    says = f"expected at most {max_bytes / 2**20:g} MiB, as the federation agreed, found more"
    return RefusalError("too-large", says, site, status=TOO_LARGE)
