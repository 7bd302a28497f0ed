"""Who may open the dashboard: addresses, host names, the token and the certificate."""

import hmac
import ipaddress
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from common.errors import ConfigError
from server.provisioning.authority import facts_of

COOKIE = "consilium-dashboard"
COOKIE_SECONDS = 30 * 24 * 3600  # longer than a study lead leaves the page open
FEWEST_TOKEN_LETTERS = 24  # 96 bits as hexadecimal: out of reach of guessing over a network
HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^\[\]:]+))(?::\d+)?")  # RFC 9110, 7.2
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Access:
    """Where the dashboard is served, and what a browser must show to see it."""

    host: str
    port: int
    names: tuple[str, ...]
    """Host names that a browser may have asked for: another one is a foreign page's."""
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None

    @property
    def scheme(self) -> str:
        """Of the page's address."""
        return "https" if self.certificate is not None else "http"

    def url(self, port: int) -> str:
        """Return the page's address; `port` is the one that was bound."""
        host = self.names[0]
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"

    def knows_host(self, header: str) -> bool:
        """Return whether a Host header names this server; its port may be a proxy's."""
        return _without_port(header) in self.names

    def is_token(self, shown: str) -> bool:
        """Return whether this is the token, in a time that does not tell how much of it fits."""
        return self.token is not None and _same(shown, self.token)

    def cookie(self) -> str:
        """Return what a browser keeps after the token was shown; the same after a restart."""
        return hmac.new((self.token or "").encode(), COOKIE.encode(), sha256).hexdigest()

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token, or the cookie that stands for it."""
        if self.token is None:
            return True
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip()):
            return True
        return _same(_cookie_of(headers.get("cookie", "")), self.cookie())


def access_for(
    host: str, port: int, *, token_file: Path | None, certificate: Path | None, key: Path | None
) -> Access:
    """Return the access that was asked for.

    Raises:
        ConfigError: for an address beyond loopback without a token and TLS, and for files that
            do not hold what they should.
    """
    if (certificate is None) != (key is None):
        raise ConfigError("--certificate, --key: expected both or none, found one")
    local = _is_loopback(host)
    lacking = [
        option
        for option, given in (("--token-file", token_file), ("--certificate and --key", key))
        if given is None
    ]
    if not local and lacking:
        raise ConfigError(
            f"--host {host}: expected --token-file, --certificate and --key, for others can reach "
            f"this address; found no {' and no '.join(lacking)}"
        )
    if certificate is not None and key is not None:
        _demand_pair(certificate, key)
    names = (host, *LOOPBACK_NAMES) if local else (*_names_in(certificate), host)
    return Access(
        host=host,
        port=port,
        names=tuple(dict.fromkeys(name.lower() for name in names)),
        token=None if token_file is None else _token(token_file),
        certificate=certificate,
        key=key,
    )


def _demand_pair(certificate: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError as well
        raise ConfigError(
            f"{certificate}, {key}: expected a certificate and its key without a passphrase, in "
            f"PEM; found: {error.strerror or error}"
        ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names_in(certificate: Path | None) -> tuple[str, ...]:
    if certificate is None:
        return ()
    return facts_of(certificate.read_bytes()).names


def _token(path: Path) -> str:
    try:
        token, mode = path.read_text(encoding="ascii").strip(), path.stat().st_mode
    except (OSError, ValueError):
        raise ConfigError(f"{path}: expected a file with a token of plain letters") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path}: expected a file that only you can read (chmod 600)")
    if len(token) < FEWEST_TOKEN_LETTERS or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{path}: expected one token of at least {FEWEST_TOKEN_LETTERS} letters, for example "
            "of `openssl rand -hex 24`"
        )
    return token


def _without_port(header: str) -> str:
    """Return the name in a Host header; empty for what is none."""
    found = HOST.fullmatch(header.strip().lower())
    return (found["v6"] or found["name"]) if found is not None else ""


def _cookie_of(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _same(shown: str, expected: str) -> bool:
    return hmac.compare_digest(shown.encode(), expected.encode())
