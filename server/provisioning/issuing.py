"""What has to be issued or revoked so that the registry is what the study lead asks for."""

import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from common.errors import ConfigError
from common.kit import (
    ADMIN_TOKEN,
    CA_CERTIFICATE,
    EXECUTOR_SECRET,
    IDENTITY_KEY,
    NODE_KEY,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    Validity,
)
from server.provisioning.authority import (
    CertificateFacts,
    Certified,
    facts_of,
    instant,
    new_authority,
    new_identity,
    new_node_key,
    new_server,
    signs,
    valid_for,
)
from server.provisioning.federation_file import AUTHORITY, COORDINATOR, FederationFile
from server.provisioning.registry import (
    IssuedCertificate,
    IssuedKeys,
    Registry,
    read_registry,
    registry_path,
)
from server.provisioning.wish import Wish, checked

AUTHORITY_KEY = "ca.key"
SECRET_BYTES = 32  # as many as a key of AES-256


@dataclass(frozen=True)
class Issued:
    """The registry as it shall be, and the files that exist nowhere else yet."""

    registry: Registry
    certificate: bytes
    """Of the authority."""
    files: dict[str, dict[str, bytes]] = field(repr=False)
    """New secrets and certificates by kit and file name."""
    before: Registry | None = None
    """The registry as it was."""


def issue(federation: FederationFile, kits: Path, wish: Wish, now: datetime) -> Issued:
    """Issue what is missing and what is asked for; writes nothing.

    Args:
        federation: what is to be.
        kits: folder of the kits, held by this process.
        wish: whom to revoke, whose keys to make new.
        now: the present moment.

    Raises:
        ConfigError: when something asked for does not fit what was issued before.
    """
    issued = _existing(federation, kits) if registry_path(kits).exists() else None
    wish = checked(wish, federation, issued.registry if issued else None)
    if issued is None:
        issued = _founded(federation, now)
    for name in wish.revoke:
        issued = replace(issued, registry=issued.registry.with_revoked(name, instant(now)))
    current = issued.registry.current
    for name in federation.sites:
        if name not in current or name in wish.rotate:
            issued = _with_site(issued, name, federation.valid_days, now)
    names = set(federation.certificate_names)
    if COORDINATOR in wish.rotate or set(issued.registry.coordinator[-1].names) != names:
        issued = _with_coordinator(issued, federation, _authority(kits, issued), now)
    return issued


def _existing(federation: FederationFile, kits: Path) -> Issued:
    registry = read_registry(kits)
    if registry.federation != federation.name:
        raise ConfigError(
            f"{kits}: expected the kits of the federation {federation.name}, found those of "
            f"{registry.federation}; choose another folder"
        )
    path = kits / AUTHORITY / CA_CERTIFICATE
    try:
        certificate = path.read_bytes()
        if facts_of(certificate).sha256 != registry.authority.sha256:
            raise ValueError("another certificate")  # noqa: TRY301 - one message for both
    except (OSError, ValueError):
        raise ConfigError(
            f"{path}: expected the certificate with serial number {registry.authority.serial}; "
            "put it back from where you keep a copy"
        ) from None
    return Issued(registry, certificate, {}, registry)


def _founded(federation: FederationFile, now: datetime) -> Issued:
    """Return an authority and the coordinator's certificate, without sites."""
    made = new_authority(federation.name, now)
    authority = _recorded(facts_of(made.certificate))
    server, files = _server(federation, made, now)
    registry = Registry(
        federation=federation.name, authority=authority, coordinator=(server,), sites={}
    )
    own = {AUTHORITY_KEY: made.key, CA_CERTIFICATE: made.certificate}
    return Issued(registry, made.certificate, {AUTHORITY: own, COORDINATOR: files})


def _with_site(issued: Issued, name: str, days: int, now: datetime) -> Issued:
    node, identity = new_node_key(), new_identity()
    keys = IssuedKeys(
        public_key=node.public,
        identity=identity.public,
        validity=_lasting(days, issued.registry.authority.validity, now),
    )
    files = {NODE_KEY: node.private, IDENTITY_KEY: identity.private}
    return replace(
        issued,
        registry=issued.registry.with_site(name, keys, instant(now)),
        files={**issued.files, name: files},
    )


def _with_coordinator(
    issued: Issued, federation: FederationFile, authority: Certified, now: datetime
) -> Issued:
    server, files = _server(federation, authority, now)
    return replace(
        issued,
        registry=issued.registry.with_coordinator(server, instant(now)),
        files={**issued.files, COORDINATOR: files},
    )


def _server(
    federation: FederationFile, authority: Certified, now: datetime
) -> tuple[IssuedCertificate, dict[str, bytes]]:
    """Return a new certificate of the coordinator and its files; secrets do not outlive it."""
    above = facts_of(authority.certificate).validity
    validity = _lasting(federation.valid_days, above, now)
    made = new_server(authority, federation.certificate_names, validity)
    files = {
        SERVER_KEY: made.key,
        SERVER_CERTIFICATE: made.certificate,
        ADMIN_TOKEN: secrets.token_hex(SECRET_BYTES).encode(),
        EXECUTOR_SECRET: secrets.token_bytes(SECRET_BYTES),
    }
    return _recorded(facts_of(made.certificate)), files


def _lasting(days: int, authority: Validity, now: datetime) -> Validity:
    """Return how long something lasts that is issued now; nothing outlasts the authority."""
    match authority.at(now):
        case "expired":
            raise ConfigError(
                f"{AUTHORITY}: expired on {authority.not_after}; found a new federation in another "
                "folder"
            )
        case "not-yet-valid":
            raise ConfigError(
                f"{AUTHORITY}: valid from {authority.not_before}, which this computer's clock says "
                "is yet to come; set the clock"
            )
    return valid_for(days, now, until=authority.not_after)


def _authority(kits: Path, issued: Issued) -> Certified:
    """Return the authority with its key, which only new certificates need."""
    path = kits / AUTHORITY / AUTHORITY_KEY
    try:
        authority = Certified(path.read_bytes(), issued.certificate)
    except OSError as error:
        raise ConfigError(
            f"{path}: expected the authority's key, for the coordinator gets a new certificate; "
            f"found {error.strerror}"
        ) from None
    if not signs(authority):
        raise ConfigError(f"{path}: expected the key of {CA_CERTIFICATE}, found another")
    return authority


def _recorded(facts: CertificateFacts) -> IssuedCertificate:
    return IssuedCertificate(
        serial=facts.serial, sha256=facts.sha256, names=facts.names, validity=facts.validity
    )
