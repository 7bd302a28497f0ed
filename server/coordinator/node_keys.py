"""Public keys of sites, as kits write them and as Flower's requests carry them."""

from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from common.errors import ConfigError

KeyBytes: TypeAlias = bytes
"""PEM of the SubjectPublicKeyInfo: what Flower puts into its header and its database."""


def node_key_bytes(line: str, where: str) -> KeyBytes:
    """Return a P-384 key, one line in OpenSSH format, as Flower writes it.

    Raises:
        ConfigError: for anything else; `where` names the place.
    """
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise ConfigError(f"{where}: expected a P-384 key in OpenSSH format, found {line[:40]!r}")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def signature_nonce(signature: bytes) -> int:
    """Return the part of a valid ECDSA signature that differs whenever the key signs.

    From one signature of a text anybody can make another one by negating its second part; the
    first part stays, and another one needs the private key.
    """
    return decode_dss_signature(signature)[0]
