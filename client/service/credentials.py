"""A site's key and the federation's certificate; the one file here that knows cryptography.

Every request of a site is signed as Flower's `NodeAuthHttpInterceptor` does it: ECDSA with SHA-256
over the time of the request.
"""

from base64 import b64encode
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from common.errors import ConfigError
from common.kit import Validity

# Names as in flwr 1.41: common.constant and supercore.constant; a test compares them.
KEY_HEADER, TIME_HEADER, SIGNATURE_HEADER = "flwr-public-key", "flwr-timestamp", "flwr-signature"


def signed_headers(key_file: Path, now: datetime) -> dict[str, str]:
    """Return the headers by which the coordinator knows this site.

    Args:
        key_file: the site's private key, P-384, in OpenSSH's format.
        now: time of the request, with its time zone; the coordinator tolerates 300 s.

    Raises:
        ConfigError: when the file is no such key.
    """
    key = node_key(key_file)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    timestamp = now.isoformat()
    signature = key.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
    return {
        KEY_HEADER: b64encode(public).decode("ascii"),
        TIME_HEADER: timestamp,
        SIGNATURE_HEADER: b64encode(signature).decode("ascii"),
    }


def node_key(key_file: Path) -> ec.EllipticCurvePrivateKey:
    """Read the site's private key; errors as in `signed_headers`."""
    expected = f"{key_file}: expected the site's private key (P-384, OpenSSH)"
    try:
        key = load_ssh_private_key(key_file.read_bytes(), None)
    except OSError as error:
        raise ConfigError(f"{expected}, found {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{expected}, found something else") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ConfigError(f"{expected}, found another kind of key")
    return key


def certificate_validity(path: Path) -> Validity:
    """Return from when until when a certificate is valid.

    Raises:
        ConfigError: when the file is no certificate in PEM.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: expected a certificate, found {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path}: expected a certificate (PEM), found something else") from None
    return Validity(
        not_before=certificate.not_valid_before_utc.isoformat(timespec="seconds"),
        not_after=certificate.not_valid_after_utc.isoformat(timespec="seconds"),
    )
