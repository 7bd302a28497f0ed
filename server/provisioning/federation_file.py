"""FEDERATION.toml: what the study lead says about a federation before anybody gets a kit."""

import re
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator

from common.codec import read_toml, record
from common.errors import ConfigError
from common.kit import FederationName
from common.task import load_task

AUTHORITY, COORDINATOR, ALL = "authority", "coordinator", "all"
RESERVED = (AUTHORITY, COORDINATOR, ALL)
LOOPBACK = ("localhost", "127.0.0.1")  # for the coordinator's own programs
MAX_PORT = 2**16 - 1
MAX_DAYS = 825  # support.apple.com/103769: the longest that TLS clients accept of a private CA
MAX_HOST = 253  # RFC 1035, section 2.3.4, without the final dot
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123, section 2.1
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")  # as `common.federation.SiteName`


def is_ip(host: str) -> bool:
    """Return whether a host is an IPv4 address and not a name."""
    try:
        IPv4Address(host)
    except AddressValueError:
        return False
    return True


def _host(host: str) -> str:
    labels = host.split(".")
    named = all(LABEL.fullmatch(label) for label in labels) and len(host) <= MAX_HOST
    if not is_ip(host) and (not named or labels[-1].isdecimal()):
        raise ValueError(f"expected a host name or an IPv4 address, found {host!r}")
    return host


def _ip(address: str) -> str:
    if not is_ip(address):
        raise ValueError(f"expected an IPv4 address, found {address!r}")
    return address


def _address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not re.fullmatch("[1-9][0-9]{0,4}", port) or int(port) > MAX_PORT or not host:
        raise ValueError(
            f"expected a host, a colon and a port up to {MAX_PORT}, as in "
            f"'federation.example.org:9092', found {address!r}"
        )
    _host(host)
    return address


def _site(name: str) -> str:
    if not SITE.fullmatch(name):
        raise ValueError(
            "expected at most 64 letters, digits, '.', '_' and '-', a letter or digit first, "
            f"found {name!r}"
        )
    if name.lower() in RESERVED:
        raise ValueError(f"expected another name than {', '.join(RESERVED)}, found {name!r}")
    return name


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for name in _some(names):
        if (same := seen.get(name.lower())) is not None:
            raise ValueError(
                f"expected names that differ by more than capital letters, found {same!r} and "
                f"{name!r}"
            )
        seen[name.lower()] = name
    return names


def _some(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:  # pydantic's own MinLen does not count items that are wrong
        raise ValueError("expected at least one, found none")
    return items


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError(f"expected one line of text, found {text!r}")
    return text


@record
class FederationFile:
    """What the kits of a federation are made from. Holds no secret."""

    name: FederationName
    address: Annotated[str, AfterValidator(_address)]
    """Host and port of the coordinator as the sites dial it."""
    names: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    """Further names and addresses of the coordinator, for its certificate."""
    listen: Annotated[str, AfterValidator(_host)] = "0.0.0.0"  # noqa: S104 - sites come from outside
    """Address of the coordinator's machine at which it listens."""
    admin_addresses: Annotated[
        tuple[Annotated[str, AfterValidator(_ip)], ...], AfterValidator(_some)
    ] = ("127.0.0.1",)
    """From where runs may be started."""
    sites: Annotated[tuple[Annotated[str, AfterValidator(_site)], ...], AfterValidator(_different)]
    """All sites, also those that are revoked later."""
    task: str
    """A built-in task or a TOML file: what the template of each site's policy allows."""
    contact: Annotated[str, AfterValidator(_one_line)] = "the person who gave you this folder"
    """Whom a hospital asks, with a telephone number."""
    valid_days: Annotated[int, Ge(1), Le(MAX_DAYS)] = 365
    """How long keys and certificates last that are issued from now on."""
    max_message_mb: Annotated[float, Gt(0)] = 1024.0
    """Largest message, in 2**20 bytes; a model of 31 million float32 weights has 118."""

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """Names and addresses that the coordinator's certificate proves, each once."""
        return tuple(dict.fromkeys((self.address.rpartition(":")[0], *self.names, *LOOPBACK)))


def read_federation(path: Path) -> FederationFile:
    """Read FEDERATION.toml; the task's file lies relative to it, and becomes the task's name.

    Raises:
        ConfigError: with one line per defect.
    """
    file = read_toml(FederationFile, path)
    own = file.task.endswith(".toml")
    try:
        task = load_task(str(path.parent / file.task) if own else file.task)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: task: {line}" for line in lines)) from None
    try:
        return replace(file, task=_one_line(task.name))
    except ValueError as error:
        raise ConfigError(f"{path}: task: name: {error}") from None
