"""What a kit holds: the folder that makes a machine a site or the coordinator of a federation.

`consilium provision` writes kits, a person carries them over, and both sides read them here. A
site's kit names no other site but by the public key that a secure sum needs, and nothing in it has
to be secret but the files that end in ``.key`` and the two tokens.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, MinLen
from pydantic import StringConstraints, model_validator

from common.codec import read_toml, record
from common.errors import ConfigError
from common.federation import SiteName
from common.secure_sum import Key

Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+:[1-9][0-9]{0,4}$")]
"""Host name or IPv4 address, a colon, and a port."""
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$")]
FederationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Instant = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\+00:00$")]
"""A point in time, UTC, to the second, as ISO 8601 writes it."""

SITE_KIT, COORDINATOR_KIT = "kit.toml", "coordinator.toml"
SITE_FILE = "site.toml"  # the hospital's own: data folder and policy; not in the checksums
CA_CERTIFICATE = "ca.crt"
NODE_KEY = "site.key"  # P-384, OpenSSH format: signs every request to the coordinator
IDENTITY_KEY = "identity.key"  # Ed25519, PEM: signs the keys of a secure sum
SERVER_CERTIFICATE, SERVER_KEY = "coordinator.crt", "coordinator.key"
ADMIN_TOKEN, EXECUTOR_SECRET = "admin.token", "executor.secret"
CHECKSUMS = "SHA256SUMS"
README = "README.md"
STATE = "state"  # folder that the running programs own: database, logs, cache, ledger

HELLO_PATH = "/consilium/hello"
"""Where a site asks whether the coordinator knows it, signed like every request of its node."""
TOKEN_HEADER = "x-consilium-admin"  # noqa: S105 - a header's name
"""Carries the content of `ADMIN_TOKEN` in every request that only the coordinator may make."""

RefusalReason = Literal[
    "unknown-site",
    "revoked",
    "expired",
    "not-yet-valid",
    "clock",
    "signature",
    "replayed",
    "too-large",
    "not-for-sites",
    "token",
]
"""Why the gate in front of the coordinator refuses a request."""


@record
class Validity:
    """From when until when something may be used."""

    not_before: Instant
    not_after: Instant

    @model_validator(mode="after")
    def _ordered(self) -> "Validity":
        if self.not_after <= self.not_before:
            raise ValueError(f"not_after: expected after {self.not_before}")
        return self

    def at(self, now: datetime) -> Literal["valid", "expired", "not-yet-valid"]:
        """Say whether something may be used at a point in time (with its time zone)."""
        if now < datetime.fromisoformat(self.not_before):
            return "not-yet-valid"
        return "valid" if now <= datetime.fromisoformat(self.not_after) else "expired"


@record
class SiteKit:
    """`kit.toml` of a site."""

    federation: FederationName
    site: SiteName
    coordinator: Address
    """What the site dials; a name or address of the coordinator's certificate."""
    validity: Validity
    """Of the site's key."""
    version: str
    """Of the package that the federation runs."""
    package_sha256: Key
    """`common.installed.package_digest` of that package."""
    max_message_mb: Annotated[float, Gt(0)]
    """Largest message, in 2**20 bytes, that either side accepts."""
    peers: dict[SiteName, Key]
    """The other sites' Ed25519 public keys, in hexadecimal digits."""


@record
class SiteEntry:
    """What the coordinator knows of a site."""

    public_key: str
    """P-384, one line in OpenSSH format."""
    validity: Validity
    revoked: Instant | None = None
    """Since when nothing is accepted from it."""


@record
class CoordinatorKit:
    """`coordinator.toml` of the coordinator."""

    federation: FederationName
    address: Address
    """What sites dial; its port is the one to listen at."""
    listen: Host = "0.0.0.0"  # noqa: S104 - sites come from other machines; the gate stands there
    """Address of this machine at which to listen."""
    admin_addresses: Annotated[tuple[Host, ...], MinLen(1)] = ("127.0.0.1",)
    """From where runs may be started; every other address reaches only what sites need."""
    validity: Validity
    """Of the coordinator's certificate."""
    version: str
    package_sha256: Key
    max_message_mb: Annotated[float, Gt(0)]
    sites: dict[SiteName, SiteEntry]

    @property
    def port(self) -> int:
        """Where to listen."""
        return int(self.address.rpartition(":")[2])


@record
class Hello:
    """The gate's answer to a site that it knows."""

    federation: FederationName
    site: SiteName
    version: str
    package_sha256: Key
    time: Instant
    """By the coordinator's clock."""


@record
class Refused:
    """The gate's answer to everything that it refuses, as JSON with status 403 (413 for size)."""

    reason: RefusalReason
    says: str
    """The same in a sentence, with what to do."""


def is_private(name: str) -> bool:
    """Return whether a file of a kit is a secret, which only its owner may read."""
    return name.endswith(".key") or name in {ADMIN_TOKEN, EXECUTOR_SECRET}


def read_site_kit(folder: Path) -> SiteKit:
    """Read the kit of a site.

    Raises:
        ConfigError: when the folder holds none, or one that does not fit.
    """
    return read_toml(SiteKit, _file(folder, SITE_KIT, "the folder that the coordinator sent"))


def read_coordinator_kit(folder: Path) -> CoordinatorKit:
    """Read the kit of the coordinator; errors as in `read_site_kit`."""
    where = "the folder `coordinator` that `consilium provision` made"
    return read_toml(CoordinatorKit, _file(folder, COORDINATOR_KIT, where))


def _file(folder: Path, name: str, what: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise ConfigError(f"{folder}: expected {what}, found no {name} in it")
    return path
