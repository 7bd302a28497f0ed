"""The coordinator's kit as it lies on the disk now: a site that is revoked is so at once.

The gate asks for every request; the file is read again only when it changed. A file that cannot be
read lets nobody in.
"""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.kit import CoordinatorKit, SiteEntry, read_coordinator_kit
from server.coordinator.node_keys import KeyBytes, node_key_bytes


@dataclass(frozen=True)
class Rules:
    """What the gate goes by, derived from one state of the file."""

    kit: CoordinatorKit
    sites: dict[KeyBytes, tuple[str, SiteEntry]]
    """Name and entry by public key, as requests carry it."""
    admin: frozenset[str]
    """Addresses from where runs may be started."""

    @property
    def max_bytes(self) -> int:
        """Most bytes of a message."""
        return int(self.kit.max_message_mb * 2**20)


class LiveKit:
    """Reads `coordinator.toml` again whenever it changed."""

    def __init__(self, folder: Path, file: Path) -> None:
        """Read the kit for the first time; errors as in `read`."""
        self._folder, self._file = folder, file
        self._stamp: tuple[int, int, int] | None = None
        self._rules = self.read()

    def read(self) -> Rules:
        """Return the rules of now.

        Raises:
            ConfigError: when the file is missing or does not fit.
        """
        try:
            found = self._file.stat()
        except OSError as error:
            raise ConfigError(f"{self._file}: {error.strerror}") from None
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            self._stamp = None  # stays so until the new content was understood
            self._rules = rules_of(read_coordinator_kit(self._folder))
            self._stamp = stamp
        return self._rules


def rules_of(kit: CoordinatorKit) -> Rules:
    """Derive the gate's rules; a malformed public key is a `ConfigError`."""
    sites: dict[KeyBytes, tuple[str, SiteEntry]] = {}
    for name, entry in kit.sites.items():
        key = node_key_bytes(entry.public_key, f"sites.{name}.public_key")
        if key in sites:
            raise ConfigError(f"sites.{name}: has the same public key as {sites[key][0]}")
        sites[key] = (name, entry)
    admin = frozenset(plain for host in kit.admin_addresses for plain in _addresses(host))
    return Rules(kit, sites, admin)


def plain_address(host: str) -> str:
    """Return one way of writing an address; IPv4 inside IPv6 becomes IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _addresses(host: str) -> set[str]:
    """Return the addresses of a host; none for a name that nobody knows."""
    try:
        return {plain_address(str(found[4][0])) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return set()
