"""Asking the coordinator whether it knows this site, over the very path that Flower takes.

The same HTTP library, the same certificate, the same signature and the same proxy settings as the
SuperNode: what works here works there. What does not work is told apart by its cause.
"""

import socket
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, get_args

import httpx

from client.service.credentials import signed_headers
from common.codec import decode
from common.errors import ConfigError, ConsiliumError
from common.kit import CA_CERTIFICATE, HELLO_PATH, NODE_KEY, Hello, Refused, SiteKit

TIMEOUT_S = 10.0
LONGEST_ANSWER_BYTES = 65_536  # a hello takes about 300 bytes

Stage = Literal["name", "connection", "certificate", "answer"]
"""How far a call got before it failed, in this order."""
STAGES: tuple[Stage, ...] = get_args(Stage)

# X509_V_ERR_* of OpenSSL's x509_vfy.h
NOT_YET_VALID, EXPIRED, HOST_MISMATCH, ADDRESS_MISMATCH = 9, 10, 62, 64
OTHER_CA = {2, 18, 19, 20, 21, 7}  # no issuer, self-signed, not verifiable, wrong signature

CAUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Stage, str, str], ...] = (
    (
        ssl.SSLError,
        "certificate",
        "{where} does not speak TLS as expected",
        "ask the coordinator for address and port, your network team for what inspects TLS here",
    ),
    (
        socket.gaierror,
        "name",
        "the name in {where} is not known here",
        "ask your network team why DNS does not know it, or the coordinator for the name",
    ),
    (
        ConnectionRefusedError,
        "connection",
        "{where} refuses connections",
        "ask the coordinator whether it runs, your network team whether this port may be used",
    ),
    (
        (httpx.ReadTimeout, httpx.WriteTimeout),
        "answer",
        "{where} took the connection but does not answer in time",
        "ask the coordinator whether it is stuck",
    ),
    (
        (httpx.TimeoutException, TimeoutError),
        "connection",
        "{where} does not answer in time",
        "ask your network team whether the firewall lets this port out",
    ),
)


class UnreachableError(ConsiliumError):
    """The coordinator gave no answer that can be used."""

    exit_code = 2

    def __init__(self, stage: Stage, found: str, mend: str, *, for_good: bool = False) -> None:
        """Keep how far the call got, and whether trying again cannot help."""
        super().__init__(f"{found}; {mend}")
        self.stage, self.found, self.mend, self.for_good = stage, found, mend, for_good


def ask(kit: SiteKit, folder: Path, timeout_s: float = TIMEOUT_S) -> tuple[Hello | Refused, float]:
    """Ask the coordinator whether it knows this site.

    Args:
        kit: the site's kit.
        folder: where it lies, with its certificate and key.
        timeout_s: for each step: connecting, sending, reading.

    Returns:
        The answer, and by how many seconds this machine's clock is ahead of the coordinator's
        (NaN when the answer does not tell).

    Raises:
        UnreachableError: when there is no answer, with its cause.
        ConfigError: when the kit's certificate or key cannot be read.
    """
    now = datetime.now(UTC)
    headers = signed_headers(folder / NODE_KEY, now)
    url = f"https://{kit.coordinator}{HELLO_PATH}"
    try:
        with httpx.Client(verify=_trust(folder / CA_CERTIFICATE), timeout=timeout_s) as client:
            response = client.get(url, headers=headers)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise _explained(error, kit.coordinator) from None
    answer = _answer(response, kit.coordinator)
    return answer, _ahead_s(answer, response, now)


def _trust(certificate: Path) -> ssl.SSLContext:
    """Return a context that trusts the federation's CA and nobody else, as the SuperNode does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=certificate.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = getattr(error, "strerror", None) or "no certificate (PEM)"
        raise ConfigError(f"{certificate}: expected a certificate, found {what}") from None
    return context


def _answer(response: httpx.Response, where: str) -> Hello | Refused:
    """Read the answer; anything but the two records comes from another program."""
    kinds: dict[int, type[Hello] | type[Refused]] = {200: Hello, 403: Refused, 413: Refused}
    kind = kinds.get(response.status_code)
    other = UnreachableError(
        "answer",
        f"{where} answers with status {response.status_code}, not as a coordinator of Consilium",
        "ask the coordinator whether it runs, and your network team whether a proxy answers for it",
    )
    if kind is None or len(response.content) > LONGEST_ANSWER_BYTES:
        raise other
    try:
        return decode(kind, response.json(), source=where)
    except (ValueError, ConfigError):
        raise other from None


def _ahead_s(answer: Hello | Refused, response: httpx.Response, now: datetime) -> float:
    """Compare the clocks, by the answer or, when we were refused, by its header."""
    try:
        if isinstance(answer, Hello):
            theirs = datetime.fromisoformat(answer.time)
        else:
            theirs = parsedate_to_datetime(response.headers["date"])
        return (now - theirs).total_seconds()
    except (KeyError, ValueError, TypeError):
        return float("nan")


def _explained(error: Exception, where: str) -> UnreachableError:
    """Turn the deepest cause of a failed call into words."""
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause, where.rpartition(":")[0])
    for kinds, stage, found, mend in CAUSES:
        if any(isinstance(cause, kinds) for cause in causes):
            return UnreachableError(stage, found.format(where=where), mend)
    found = f"the connection to {where} fails ({_last_words(causes)})"
    mend = "ask your network team whether this machine reaches that address"
    return UnreachableError("connection", found, mend)


def _untrusted(error: ssl.SSLCertVerificationError, host: str) -> UnreachableError:
    code = error.verify_code
    if code in {EXPIRED, NOT_YET_VALID}:
        when = "has expired" if code == EXPIRED else "is not valid yet"
        clock = datetime.now(UTC).isoformat(timespec="minutes")
        return UnreachableError(
            "certificate",
            f"the coordinator's certificate {when} by this machine's clock ({clock})",
            "set the clock if it is wrong; else ask the coordinator to renew its certificate",
        )
    if code in {HOST_MISMATCH, ADDRESS_MISMATCH}:
        return UnreachableError(
            "certificate",
            f"the certificate shown is of this federation but not made out to {host}",
            "ask the coordinator for the address that its certificate names",
            for_good=True,
        )
    kind = "another authority" if code in OTHER_CA else f"an authority not accepted ({code})"
    return UnreachableError(
        "certificate",
        f"whoever answers for {host} shows a certificate of {kind}, not of this federation",
        "do not go on: the kit is of another federation, or somebody in between reads along; call "
        "the coordinator",
        for_good=True,
    )


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what it was raised from, deepest first."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.insert(0, current)
        current = current.__cause__ or current.__context__
    return found


def _last_words(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(causes[-1]).__name__
