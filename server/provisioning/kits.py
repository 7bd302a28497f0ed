"""What stands in every file of every kit, and which of it is not yet on the disk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from common.codec import json_text, toml_text
from common.errors import ConfigError
from common.kit import (
    CA_CERTIFICATE,
    CHECKSUMS,
    COORDINATOR_KIT,
    IDENTITY_KEY,
    NODE_KEY,
    README,
    SERVER_CERTIFICATE,
    SITE_FILE,
    SITE_KIT,
    CoordinatorKit,
    SiteKit,
    read_coordinator_kit,
    read_site_kit,
)
from common.kit_checksums import COORDINATOR_OWN, SITE_OWN, checksum_list
from server.provisioning.authority import facts_of, identity_public_key, node_public_key
from server.provisioning.federation_file import AUTHORITY, COORDINATOR, FederationFile
from server.provisioning.issuing import Issued
from server.provisioning.readmes import rendered
from server.provisioning.registry import REGISTRY


@dataclass(frozen=True)
class Basis:
    """What all kits of a federation are made from."""

    federation: FederationFile
    issued: Issued
    kits: Path
    """Folder of the kits."""
    version: str
    """Of the package that the federation runs."""
    package_sha256: str


@dataclass(frozen=True)
class Draft:
    """A kit as it shall be."""

    files: dict[str, bytes]
    """By name, secrets among them: never to be shown."""
    changed: tuple[str, ...]
    """Keys of its TOML file that get another value; all of them in a new kit."""

    def missing_in(self, folder: Path) -> dict[str, bytes]:
        """Return the files that are not there yet as they shall be."""
        return {
            name: content
            for name, content in self.files.items()
            if not _is_file_with(folder / name, content)
        }


def authority_draft(basis: Basis) -> Draft:
    """Return the folder that stays with the study lead."""
    issued = basis.issued
    words = {"federation": basis.federation, "registry": issued.registry}
    files = {
        **issued.files.get(AUTHORITY, {}),
        CA_CERTIFICATE: issued.certificate,
        REGISTRY: json_text(issued.registry),
        README: rendered("kit_authority.md.j2", **words),
    }
    return Draft(files, ())


def coordinator_draft(basis: Basis) -> Draft:
    """Return the coordinator's kit.

    Raises:
        ConfigError: when its secrets are not there any more.
    """
    folder, issued, federation = basis.kits / COORDINATOR, basis.issued, basis.federation
    own = issued.files.get(COORDINATOR) or _own(folder, COORDINATOR_OWN)
    certificate = issued.registry.coordinator[-1]
    if own is None or not _fits(
        lambda: facts_of(own[SERVER_CERTIFICATE]).sha256 == certificate.sha256
    ):
        raise ConfigError(
            f"{folder}: expected {', '.join(COORDINATOR_OWN)} as they were made; put the folder "
            f"back, or make all of them new with --rotate {COORDINATOR}"
        )
    kit = CoordinatorKit(
        federation=federation.name,
        address=federation.address,
        listen=federation.listen,
        admin_addresses=federation.admin_addresses,
        validity=certificate.validity,
        version=basis.version,
        package_sha256=basis.package_sha256,
        max_message_mb=federation.max_message_mb,
        sites=issued.registry.entries,
    )
    files = {
        **own,
        CA_CERTIFICATE: issued.certificate,
        COORDINATOR_KIT: toml_text(kit),
        README: rendered("kit_coordinator.md.j2", federation=federation, kit=kit),
    }
    changed = _changed(lambda: read_coordinator_kit(folder), kit)
    return Draft({**files, CHECKSUMS: checksum_list(files)}, changed)


def site_draft(basis: Basis, site: str) -> Draft | None:
    """Return a site's kit; None when its secrets are not here, for it was handed over.

    Raises:
        ConfigError: when the folder holds other keys than were issued.
    """
    folder, issued = basis.kits / site, basis.issued
    if site in issued.files and (issued.before is None or site not in issued.before.sites):
        _demand_free(folder)
    own = issued.files.get(site) or _own(folder, SITE_OWN)
    if own is None:
        return None
    _demand_issued(issued, folder, own)
    kit = _site_kit(basis, site)
    words = {"federation": basis.federation, "kit": kit}
    files = {
        **own,
        CA_CERTIFICATE: issued.certificate,
        SITE_KIT: toml_text(kit),
        README: rendered("kit_site.md.j2", **words),
    }
    files[CHECKSUMS] = checksum_list(files)
    if not (folder / SITE_FILE).exists():  # once there, it is the hospital's own
        files[SITE_FILE] = rendered("kit_site.toml.j2", **words)
    return Draft(files, _changed(lambda: read_site_kit(folder), kit))


def _site_kit(basis: Basis, site: str) -> SiteKit:
    federation, registry = basis.federation, basis.issued.registry
    return SiteKit(
        federation=federation.name,
        site=site,
        coordinator=federation.address,
        validity=registry.current[site].validity,
        version=basis.version,
        package_sha256=basis.package_sha256,
        max_message_mb=federation.max_message_mb,
        peers=registry.peers_of(site),
    )


def _demand_free(folder: Path) -> None:
    if folder.exists():
        raise ConfigError(
            f"{folder}: expected nothing there, for the kit of that name is new; found something "
            "that this program did not make"
        )


def _demand_issued(issued: Issued, folder: Path, own: Mapping[str, bytes]) -> None:
    keys = issued.registry.current[folder.name]
    if not _fits(
        lambda: (
            node_public_key(own[NODE_KEY]) == keys.public_key
            and identity_public_key(own[IDENTITY_KEY]) == keys.identity
        )
    ):
        raise ConfigError(
            f"{folder}: expected the keys that were issued, found others; put them back, or make "
            f"new ones with --rotate {folder.name}"
        )


def _fits(compare: Callable[[], bool]) -> bool:
    try:
        return compare()
    except ValueError:  # no key or certificate at all
        return False


def _own(folder: Path, names: tuple[str, ...]) -> dict[str, bytes] | None:
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except FileNotFoundError:
        return None


def _changed(
    read: Callable[[], SiteKit | CoordinatorKit], after: SiteKit | CoordinatorKit
) -> tuple[str, ...]:
    names = [field.name for field in fields(after)]
    try:
        before = read()
    except ConfigError:
        return tuple(names)
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))


def _is_file_with(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False
