"""Which site a request is from: its node's key, a point in time, and the key's signature of it.

Flower checks the signature as well, but accepts the same headers again for five minutes and knows
neither validity nor revocation. Here a signed time is good once.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from common.kit import SiteEntry
from server.coordinator.live_kit import Rules
from server.coordinator.node_keys import KeyBytes, signature_nonce
from server.coordinator.refusals import TRY_AGAIN, RefusalError

OLDEST = timedelta(seconds=TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE)  # what Flower accepts
NEWEST = timedelta(seconds=SYSTEM_TIME_TOLERANCE)  # ahead of this machine's clock, likewise
MAX_SEEN = 50_000  # signatures of one site within OLDEST: 160 requests a second

Headers = Iterable[tuple[bytes, bytes]]


class Identities:
    """Tells sites by their requests, and remembers which signatures were used."""

    def __init__(self, started: datetime) -> None:
        """Begin; what was signed before may have been used with a gate before this one."""
        self._started = started
        self._seen: dict[str, dict[int, datetime]] = {}

    def site_of(self, headers: Headers, rules: Rules, now: datetime) -> str:
        """Return the name of the site that signed a request.

        Raises:
            RefusalError: when no site did, or it may not be here now.
        """
        values = _single(headers)
        name, entry, key = _entry(values.get(FLEET_HTTP_PUBLIC_KEY_HEADER), rules)
        _demand_valid(name, entry, now)
        timestamp = values.get(TIMESTAMP_HEADER) or ""
        signed_at = _signed_at(name, timestamp, now)
        signature = _bytes_of(values.get(FLEET_HTTP_SIGNATURE_HEADER)) or b""
        _demand_signature(name, key, timestamp, signature)
        self._use_once(name, signature, signed_at, now)
        return name

    def _use_once(self, name: str, signature: bytes, signed_at: datetime, now: datetime) -> None:
        """Remember what of a signature nobody can change without the key.

        Two requests of one site may be signed in the same microsecond, but never alike.
        """
        if signed_at < self._started:
            says = "signed before the coordinator started; sign it again"
            raise RefusalError("replayed", says, name, status=TRY_AGAIN)
        seen = self._seen.setdefault(name, {})
        while seen and now - next(iter(seen.values())) > OLDEST:  # refused by its time from now on
            del seen[next(iter(seen))]
        nonce = signature_nonce(signature)
        if nonce in seen or len(seen) >= MAX_SEEN:
            says = "this signature was received before; sign every request anew"
            raise RefusalError("replayed", says, name)
        seen[nonce] = signed_at


def _single(headers: Headers) -> dict[str, str | None]:
    """Return the headers by name; one that comes twice has no value."""
    values: dict[str, str | None] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        values[name] = None if name in values else raw_value.decode("latin-1")
    return values


def _bytes_of(value: str | None) -> bytes | None:
    try:
        return None if value is None else b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def _entry(value: str | None, rules: Rules) -> tuple[str, SiteEntry, KeyBytes]:
    key = _bytes_of(value)
    if key is None or key not in rules.sites:
        says = "no site of this federation has this key; ask the coordinator for a current kit"
        raise RefusalError("unknown-site", says)
    name, entry = rules.sites[key]
    return name, entry, key


def _demand_valid(name: str, entry: SiteEntry, now: datetime) -> None:
    if entry.revoked is not None:
        says = f"the key of site {name} was revoked at {entry.revoked}; ask for a new kit"
        raise RefusalError("revoked", says, name)
    match entry.validity.at(now):
        case "expired":
            says = f"the kit of site {name} was valid until {entry.validity.not_after}"
            raise RefusalError("expired", f"{says}; ask the coordinator for a new one", name)
        case "not-yet-valid":
            says = f"the kit of site {name} is valid from {entry.validity.not_before} on"
            raise RefusalError("not-yet-valid", f"{says}; by this clock it is {_words(now)}", name)


def _signed_at(name: str, timestamp: str, now: datetime) -> datetime:
    try:
        signed_at = datetime.fromisoformat(timestamp)
        age = now - signed_at
    except (TypeError, ValueError):
        says = "expected the time at which the request was signed, with its time zone"
        raise RefusalError("clock", says, name) from None
    if not -NEWEST < age < OLDEST:
        says = f"signed at {_words(signed_at)}, by the coordinator's clock it is {_words(now)}"
        raise RefusalError("clock", f"{says}; set this machine's clock", name)
    return signed_at


def _demand_signature(name: str, key: KeyBytes, timestamp: str, signature: bytes) -> None:
    signed = timestamp.encode("latin-1")
    if not verify_signature(bytes_to_public_key(key), signed, signature):
        raise RefusalError("signature", f"not signed with the key of site {name}", name)


def _words(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="seconds")
