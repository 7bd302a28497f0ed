"""The state of a whole coordinator: programs, sites, runs, refusals, disk."""

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from common.codec import record
from common.errors import ConsiliumError, FederationError
from common.kit import CoordinatorKit, Instant, SiteEntry
from server.coordinator.control import Node, control_of
from server.coordinator.health import is_serving
from server.coordinator.kit_folder import KitFolder
from server.coordinator.node_keys import KeyBytes, node_key_bytes
from server.coordinator.refusals import Refusal, refusals_since
from server.coordinator.run_status import RunStatus, run_status
from server.coordinator.supervise import EXECUTOR, SUPERLINK, SupervisorState, running
from server.coordinator.wanted_runs import WantedRun, read_wanted

SOON = timedelta(days=30)  # time to make kits and to carry them over


@record
class SiteStatus:
    """What the coordinator knows of a site's connection."""

    site: str
    connection: str
    """connected, lost, never seen, or unknown while the SuperLink does not answer."""
    valid_from: Instant
    valid_until: Instant
    validity: str
    """valid, expired or not-yet-valid."""
    since: str | None = None
    """Of the connection, or of its end; ISO 8601."""
    revoked: Instant | None = None


@record
class Status:
    """All that `consilium coordinator status` tells."""

    federation: str
    running: bool
    """Whether a supervisor keeps the rest going."""
    superlink: bool
    """Whether it serves, by gRPC health checking."""
    executor: bool
    """Whether its process lives."""
    sites: tuple[SiteStatus, ...]
    runs: tuple[RunStatus, ...]
    refused: tuple[Refusal, ...]
    """In the last day."""
    certificate_until: Instant
    disk_free_gib: float
    trouble: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether everything that should run does."""
        return self.running and self.superlink and self.executor


def read_status(folder: KitFolder, now: datetime) -> Status:
    """Look at everything; what does not answer is told, not raised.

    Raises:
        ConfigError: when the kit cannot be read.
    """
    kit, supervisor = folder.read(), running(folder)
    serving = supervisor is not None and folder.health.exists()
    superlink = serving and is_serving(folder.health.read_text(encoding="ascii").strip())
    trouble: list[str] = []
    nodes = _nodes(folder, trouble) if superlink else None
    return Status(
        federation=kit.federation,
        running=supervisor is not None,
        superlink=superlink,
        executor=_lives(supervisor, EXECUTOR),
        sites=_sites(kit, nodes, now),
        runs=_runs(read_wanted(folder.runs), trouble),
        refused=tuple(refusals_since(folder.refused, now - timedelta(days=1))),
        certificate_until=kit.validity.not_after,
        disk_free_gib=round(shutil.disk_usage(folder.path).free / 2**30, 1),
        trouble=(*trouble, *_endings(kit, now), *_restarts(supervisor)),
    )


def _nodes(folder: KitFolder, trouble: list[str]) -> Mapping[KeyBytes, Node] | None:
    try:
        with control_of(folder) as control:
            return {node.public_key: node for node in control.nodes()}
    except FederationError as error:
        trouble.append(str(error))
        return None


def _sites(
    kit: CoordinatorKit, nodes: Mapping[KeyBytes, Node] | None, now: datetime
) -> tuple[SiteStatus, ...]:
    return tuple(_site(name, entry, nodes, now) for name, entry in sorted(kit.sites.items()))


def _site(
    name: str, entry: SiteEntry, nodes: Mapping[KeyBytes, Node] | None, now: datetime
) -> SiteStatus:
    connection, since = "unknown", None
    if nodes is not None:
        node = nodes.get(node_key_bytes(entry.public_key, name))
        connection, since = ("never seen", None) if node is None else _connection(node)
    return SiteStatus(
        site=name,
        connection=connection,
        valid_from=entry.validity.not_before,
        valid_until=entry.validity.not_after,
        validity=entry.validity.at(now),
        since=since,
        revoked=entry.revoked,
    )


def _connection(node: Node) -> tuple[str, str | None]:
    if node.status == "online":
        return "connected", node.last_activated or None
    if not node.last_activated:
        return "never seen", None
    lost = datetime.fromtimestamp(node.online_until, UTC).isoformat(timespec="seconds")
    return "lost", node.last_deactivated or lost


def _runs(wanted: tuple[WantedRun, ...], trouble: list[str]) -> tuple[RunStatus, ...]:
    found = []
    for run in wanted:
        try:
            found.append(run_status(run))
        except ConsiliumError as error:
            trouble.append(f"run {run.run.name}: {error}")
    return tuple(found)


def _lives(supervisor: SupervisorState | None, name: str) -> bool:
    children = supervisor.children if supervisor is not None else ()
    return any(child.name == name and child.pid is not None for child in children)


def _endings(kit: CoordinatorKit, now: datetime) -> Iterator[str]:
    """Yield what is to be rotated soon."""
    ends = {f"the kit of site {name}": entry for name, entry in kit.sites.items()}
    valid = {what: entry.validity for what, entry in ends.items() if entry.revoked is None}
    for what, validity in {"the coordinator's certificate": kit.validity, **valid}.items():
        left = datetime.fromisoformat(validity.not_after) - now
        if timedelta(0) <= left < SOON:
            yield f"{what} ends in {left.days} days: rotate it"


def _restarts(supervisor: SupervisorState | None) -> tuple[str, ...]:
    children = supervisor.children if supervisor is not None else ()
    return tuple(
        f"{child.name} was started {child.n_starts} times; its log: state/logs/{child.name}.log"
        for child in children
        if child.n_starts > 1 and child.name in {SUPERLINK, EXECUTOR}
    )
