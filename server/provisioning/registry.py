"""authority/registry.json: what a federation issued, to whom, and what of it still holds.

Nothing is ever struck out: a key that was replaced or revoked stays in the list with the moment
since when it is refused. All of it is public.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from common.codec import read_json, record
from common.federation import SiteName
from common.kit import FederationName, Instant, SiteEntry, Validity
from common.secure_sum import Key
from server.provisioning.federation_file import AUTHORITY

REGISTRY = "registry.json"


@record
class IssuedCertificate:
    """A certificate of the authority itself or of the coordinator."""

    serial: str
    """Hexadecimal digits."""
    sha256: Key
    """Of the certificate, as ``openssl x509 -fingerprint -sha256`` says it."""
    names: tuple[str, ...]
    """What it proves; nothing for the authority."""
    validity: Validity
    replaced: Instant | None = None


@record
class IssuedKeys:
    """A site's two keys, their public halves."""

    public_key: str
    """P-384, one line in OpenSSH format."""
    identity: Key
    """Ed25519, for secure sums."""
    validity: Validity
    revoked: Instant | None = None
    replaced: Instant | None = None


@record
class Registry:
    """Everything that was issued; of each list, the last entry holds."""

    federation: FederationName
    authority: IssuedCertificate
    coordinator: Annotated[tuple[IssuedCertificate, ...], MinLen(1)]
    sites: dict[SiteName, Annotated[tuple[IssuedKeys, ...], MinLen(1)]]

    @property
    def current(self) -> dict[str, IssuedKeys]:
        """The last keys of each site, revoked ones as well."""
        return {name: keys[-1] for name, keys in self.sites.items()}

    @property
    def entries(self) -> dict[str, SiteEntry]:
        """What the coordinator has to know of the sites."""
        return {
            name: SiteEntry(
                public_key=keys.public_key, validity=keys.validity, revoked=keys.revoked
            )
            for name, keys in self.current.items()
        }

    def peers_of(self, site: str) -> dict[str, str]:
        """Return the identities of all other sites that are not revoked."""
        return {
            name: keys.identity
            for name, keys in sorted(self.current.items())
            if name != site and keys.revoked is None
        }

    def with_site(self, name: str, keys: IssuedKeys, now: Instant) -> "Registry":
        """Return the registry with new keys of a site; those before are replaced."""
        before = self.sites.get(name, ())
        ended = tuple(one if one.replaced else replace(one, replaced=now) for one in before)
        return replace(self, sites={**self.sites, name: (*ended, keys)})

    def with_coordinator(self, issued: IssuedCertificate, now: Instant) -> "Registry":
        """Return the registry with a new certificate of the coordinator."""
        ended = tuple(c if c.replaced else replace(c, replaced=now) for c in self.coordinator)
        return replace(self, coordinator=(*ended, issued))

    def with_revoked(self, name: str, now: Instant) -> "Registry":
        """Return the registry with a site's last keys revoked; once revoked, they stay so."""
        *before, last = self.sites[name]
        if last.revoked is not None:
            return self
        return replace(self, sites={**self.sites, name: (*before, replace(last, revoked=now))})


def registry_path(kits: Path) -> Path:
    """Return where the registry of a folder of kits lies."""
    return kits / AUTHORITY / REGISTRY


def read_registry(kits: Path) -> Registry:
    """Read what was issued so far.

    Raises:
        ConfigError: when the file is missing or damaged.
    """
    return read_json(Registry, registry_path(kits))
