"""From FEDERATION.toml to kits: issue what is missing, write what differs, say what to do."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from common.codec import record
from common.installed import package_digest, package_version
from common.kit_checksums import kit_digest, verify_kit
from server.provisioning.federation_file import AUTHORITY, COORDINATOR, FederationFile
from server.provisioning.issuing import Issued, issue
from server.provisioning.kits import Basis, Draft, authority_draft, coordinator_draft, site_draft
from server.provisioning.staging import change, held
from server.provisioning.wish import Wish

WARNED = timedelta(days=30)  # time to make new keys and carry them to every hospital
INTERRUPTED = (
    "an earlier change was interrupted and is finished now: give out every kit whose SHA-256 is "
    "not the one that you know"
)
KitState = Literal["new", "new-keys", "changed", "unchanged", "revoked", "not-here"]


@record
class KitReport:
    """What became of a kit."""

    name: str
    folder: str
    state: KitState
    changed: tuple[str, ...]
    """What of it changed, for a kit that was there before."""
    valid_until: str
    sha256: str | None
    """Of its list of checksums; none of a kit that is not here or revoked."""

    @property
    def for_secure_sums_only(self) -> bool:
        """Whether only sites that use secure sums need the kit again."""
        return self.state == "changed" and set(self.changed) == {"peers"}


@record
class Provisioned:
    """What a call did, and what somebody should look at."""

    federation: str
    kits: tuple[KitReport, ...]
    remarks: tuple[str, ...]

    @property
    def anything_changed(self) -> bool:
        """Whether a kit was written."""
        return any(kit.state in {"new", "new-keys", "changed"} for kit in self.kits)


def provision(federation: FederationFile, kits: Path, wish: Wish, now: datetime) -> Provisioned:
    """Make the kits what the file and the wish say; a second time, nothing changes.

    Args:
        federation: what is to be.
        kits: folder of the kits; made if it is not there.
        wish: whom to revoke, whose keys to make new.
        now: the present moment, with its time zone.

    Raises:
        ConfigError: when something asked for does not fit what was issued before; nothing was
            written then.
    """
    with held(kits) as interrupted:
        issued = issue(federation, kits, wish, now)
        basis = Basis(federation, issued, kits, package_version(), package_digest())
        drafts = dict(_drafts(basis))
        staged = {
            name: files
            for name, draft in drafts.items()
            if draft is not None and (files := draft.missing_in(kits / name))
        }
        change(kits, staged)
        names = [COORDINATOR, *issued.registry.sites]
        reports = tuple(_report(issued, drafts, staged, kits, name) for name in names)
        revoked = [name for name in wish.revoke if _was_revoked(issued, name)]
        remarks = (
            *((INTERRUPTED,) if interrupted else ()),
            *(f"{name}: was revoked before; nothing to do" for name in revoked),
            *_expiring(issued, now),
            *_defects(reports),
        )
    return Provisioned(federation=federation.name, kits=reports, remarks=remarks)


def _drafts(basis: Basis) -> Iterator[tuple[str, Draft | None]]:
    yield AUTHORITY, authority_draft(basis)
    yield COORDINATOR, coordinator_draft(basis)
    for name, keys in basis.issued.registry.current.items():
        if keys.revoked is None:
            yield name, site_draft(basis, name)


def _report(
    issued: Issued,
    drafts: Mapping[str, Draft | None],
    staged: Mapping[str, Mapping[str, bytes]],
    kits: Path,
    name: str,
) -> KitReport:
    draft = drafts.get(name)
    state = _state(issued, drafts, staged, name)
    current = issued.registry.coordinator if name == COORDINATOR else issued.registry.sites[name]
    changed = draft.changed or tuple(staged[name]) if draft and state == "changed" else ()
    return KitReport(
        name=name,
        folder=str(kits / name),
        state=state,
        changed=changed,
        valid_until=current[-1].validity.not_after,
        sha256=kit_digest(kits / name) if draft else None,
    )


def _state(
    issued: Issued,
    drafts: Mapping[str, Draft | None],
    staged: Mapping[str, Mapping[str, bytes]],
    name: str,
) -> KitState:
    if name not in drafts:
        return "revoked"
    if drafts[name] is None:
        return "not-here"
    if name in issued.files:
        known = issued.before is not None and name in (COORDINATOR, *issued.before.sites)
        return "new-keys" if known else "new"
    return "changed" if name in staged else "unchanged"


def _was_revoked(issued: Issued, name: str) -> bool:
    return issued.before is not None and issued.before.current[name].revoked is not None


def _expiring(issued: Issued, now: datetime) -> Iterator[str]:
    """Say what ends soon or has ended, with the command that makes it new."""
    registry = issued.registry
    ends = {
        COORDINATOR: registry.coordinator[-1].validity.not_after,
        **{name: k.validity.not_after for name, k in registry.current.items() if not k.revoked},
    }
    for name, end in ends.items():
        if (words := _ending(end, now)) is not None:
            yield f"{name}: {words}; --rotate {name} makes new keys"
    if (words := _ending(registry.authority.validity.not_after, now)) is not None:
        yield f"{AUTHORITY}: {words}; found a new federation in another folder"


def _ending(end: str, now: datetime) -> str | None:
    left = datetime.fromisoformat(end) - now
    if left < timedelta(0):
        return f"expired on {end[:10]}"
    return f"ends on {end[:10]}, in {left.days} days" if left <= WARNED else None


def _defects(reports: tuple[KitReport, ...]) -> Iterator[str]:
    for kit in reports:
        if kit.sha256 is not None:
            for defect in verify_kit(Path(kit.folder)):
                yield f"{kit.folder}: {defect}"
