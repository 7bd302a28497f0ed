"""What only the coordinator may ask of its SuperLink: sites, runs, and starting one."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from common.errors import FederationError
from common.kit import TOKEN_HEADER, CoordinatorKit
from server.coordinator.kit_folder import KitFolder, local_address
from server.coordinator.live_kit import rules_of
from server.coordinator.node_keys import KeyBytes

BUNDLE = Path(__file__).parent / "bundle"
N_RUNS = 1000  # as many are listed; the newest come first
ALREADY_USED = 412  # HTTP status of Flower's for a public key that is or was registered
UNREGISTERED, FINISHED = "unregistered", "finished"  # Flower's words


@dataclass(frozen=True)
class Node:
    """A site as the SuperLink knows it."""

    id: int
    name: str
    """Of the site."""
    public_key: KeyBytes
    status: str
    """registered (never seen), online or offline."""
    last_activated: str
    """Time in ISO 8601; empty before the first time."""
    last_deactivated: str
    online_until: float
    """In seconds since 1970: by then it must have sent a sign of life; after it, it was lost."""


@dataclass(frozen=True)
class FlowerRun:
    """One attempt at a run, as the SuperLink knows it."""

    id: int
    folder: str
    """What was given as run-dir."""
    status: str
    """pending, starting, running or finished."""
    details: str
    """How it finished."""

    @property
    def is_over(self) -> bool:
        """Whether nothing will come of it any more."""
        return self.status == FINISHED


class _Token:
    """Adds the coordinator's token to every request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[TOKEN_HEADER] = self._token
        return call_next(context)


class Control:
    """Speaks to the SuperLink of a kit; every method raises `FederationError` when it refuses."""

    def __init__(self, client: ControlHttpClient) -> None:
        """Use a client that carries the token."""
        self._client = client

    def nodes(self) -> list[Node]:
        """Return the sites that are registered."""
        with _explained("list the sites"):
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            Node(
                id=info.node_id,
                name=info.name,
                public_key=info.public_key,
                status=info.status,
                last_activated=info.last_activated_at,
                last_deactivated=info.last_deactivated_at,
                online_until=info.online_until,
            )
            for info in found
            if info.status != UNREGISTERED
        ]

    def register(self, kit: CoordinatorKit) -> list[str]:
        """Make the SuperLink's sites those of the kit; return what changed, one line each.

        Keys of revoked sites and keys that a site has no more are unregistered, which Flower does
        for ever: a site that comes back needs a new key.
        """
        there = self.nodes()
        wanted = {
            key: name for key, (name, entry) in rules_of(kit).sites.items() if entry.revoked is None
        }
        done = []
        for node in there:
            if node.name in kit.sites and node.public_key not in wanted:
                with _explained(f"unregister site {node.name}"):
                    self._client.UnregisterNode(UnregisterNodeRequest(node_id=node.id))
                done.append(f"site {node.name}: a key that it has no more was unregistered")
        new = wanted.keys() - {node.public_key for node in there}
        return sorted([*done, *(self._register(key, wanted[key]) for key in new)])

    def _register(self, key: KeyBytes, name: str) -> str:
        request = RegisterNodeRequest(public_key=key, name=name)
        with _explained(f"register site {name}"):
            try:
                self._client.RegisterNode(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != ALREADY_USED:
                    raise
                return f"site {name}: its key was revoked before and stays so; make it a new kit"
        return f"site {name} was registered"

    def runs(self) -> list[FlowerRun]:
        """Return the attempts at runs, newest first."""
        with _explained("list the runs"):
            answer = self._client.ListRuns(ListRunsRequest(limit=N_RUNS))
        runs = sorted(answer.run_dict.values(), key=lambda run: run.pending_at, reverse=True)
        return [
            FlowerRun(
                id=run.run_id,
                folder=run.override_config["run-dir"].string
                if "run-dir" in run.override_config
                else "",
                status=run.status.status,
                details=": ".join(filter(None, (run.status.sub_status, run.status.details))),
            )
            for run in runs
        ]

    def start(self, folder: Path, admit: str = "", without: str = "") -> int:
        """Start the experiment of a run folder, or resume it; return Flower's number for it.

        Args:
            folder: of the run.
            admit: sites that come to a resumed run, with commas.
            without: sites that leave it for ever, with commas.
        """
        bundle = build_fab_from_disk(BUNDLE)
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        settings = {"run-dir": str(folder), "admit": admit, "without": without}
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto({**settings})
        )
        with _explained("start the run"):
            answer = self._client.StartRun(request)
        if not answer.HasField("run_id"):
            raise FederationError(f"{folder}: the SuperLink started no run: {answer.note}")
        return int(answer.run_id)

    def stop(self, run_id: int) -> None:
        """Stop an attempt at a run."""
        with _explained(f"stop run {run_id}"):
            self._client.StopRun(StopRunRequest(run_id=run_id))


@contextmanager
def control_of(folder: KitFolder) -> Iterator[Control]:
    """Give a connection to the SuperLink of a kit on this machine.

    Raises:
        ConfigError: when the kit is not whole.
    """
    kit = folder.read()
    token = folder.token.read_text(encoding="ascii").strip()
    client = ControlHttpClient.from_server_address(
        local_address(kit), False, folder.ca.read_bytes(), [_Token(token)]
    )
    with client:
        yield Control(client)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        answer = error.response
        raise FederationError(f"cannot {what}: {answer.status_code} {_says(answer)}") from None
    except httpx.HTTPError as error:
        raise FederationError(f"cannot {what}: the SuperLink does not answer: {error}") from None


def _says(answer: httpx.Response) -> str:
    try:
        plain = json.loads(answer.text)
    except ValueError:
        return answer.text[:200]
    return str(plain.get("says", plain))[:300] if isinstance(plain, dict) else str(plain)[:300]
