"""Keys and certificates: the one file here that does cryptography.

A federation has a certificate authority of its own, which signs the coordinator's certificate and
nothing else: sites are known by their keys, which the coordinator's kit lists. All keys of
certificates and sites are P-384, as Flower demands of a SuperNode; a site's long-term identity in
secure sums is Ed25519 (`common.secure_sum`). Every moment is an argument: nothing reads the clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.kit import Validity
from server.provisioning.federation_file import is_ip

AUTHORITY_DAYS = 3653  # ten years: longer than a study and its follow-up; it cannot be renewed
BACKDATED = timedelta(hours=1)  # letsencrypt.org/docs/faq: for clocks that are behind


@dataclass(frozen=True)
class Certified:
    """A private key and its certificate, both PEM."""

    key: bytes = field(repr=False)
    certificate: bytes


@dataclass(frozen=True)
class KeyPair:
    """A private key as its file has it, and the public half as text."""

    private: bytes = field(repr=False)
    public: str


@dataclass(frozen=True)
class CertificateFacts:
    """What a certificate says."""

    serial: str
    sha256: str
    names: tuple[str, ...]
    validity: Validity


def valid_for(days: int, now: datetime, *, until: str | None = None) -> Validity:
    """Return from when until when something lasts that is issued now, at most until an instant."""
    end = (now + timedelta(days=days)).astimezone(UTC).replace(microsecond=0)
    if until is not None:
        end = min(end, datetime.fromisoformat(until))
    return Validity(not_before=instant(now - BACKDATED), not_after=end.isoformat())


def instant(moment: datetime) -> str:
    """Return a point in time as kits write it: UTC, to the second."""
    return moment.astimezone(UTC).replace(microsecond=0).isoformat()


def new_authority(federation: str, now: datetime) -> Certified:
    """Make the certificate authority of a federation."""
    key = generate_private_key(SECP384R1())
    name = _name(f"Consilium federation {federation}")
    usage = _usage(digital_signature=False, key_cert_sign=True, crl_sign=True)
    certificate = (
        _begun(key, name, name, valid_for(AUTHORITY_DAYS, now))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, SHA384())
    )
    return Certified(_pem(key), certificate.public_bytes(Encoding.PEM))


def new_server(authority: Certified, names: Iterable[str], validity: Validity) -> Certified:
    """Make a key and certificate for a server.

    Args:
        authority: who signs.
        names: host names and IPv4 addresses that the certificate proves.
        validity: within that of the authority.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = _elliptic(load_pem_private_key(authority.key, password=None))
    key = generate_private_key(SECP384R1())
    usage = _usage(digital_signature=True, key_cert_sign=False, crl_sign=False)
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    certificate = (
        _begun(key, _name("Consilium coordinator"), issuer.subject, validity)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(map(_general, names)), critical=False)
        .add_extension(above, critical=False)
        .sign(signer, SHA384())
    )
    return Certified(_pem(key), certificate.public_bytes(Encoding.PEM))


def new_node_key() -> KeyPair:
    """Make a site's key, in the format that Flower's SuperNode reads."""
    key = generate_private_key(SECP384R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return KeyPair(private, _ssh_line(key))


def new_identity() -> KeyPair:
    """Make a site's long-term key for secure sums; its public half in hexadecimal digits."""
    key = Ed25519PrivateKey.generate()
    return KeyPair(_pem(key), key.public_key().public_bytes_raw().hex())


def node_public_key(private: bytes) -> str:
    """Return the public line of a site's key.

    Raises:
        ValueError: when it is no such key.
    """
    return _ssh_line(_elliptic(load_ssh_private_key(private, password=None)))


def identity_public_key(private: bytes) -> str:
    """Return the public half of a site's identity; errors as in `node_public_key`."""
    key = load_pem_private_key(private, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("expected an Ed25519 key")  # noqa: TRY004 - a value of a file
    return key.public_key().public_bytes_raw().hex()


def signs(authority: Certified) -> bool:
    """Return whether an authority's key is the one of its certificate."""
    certificate = x509.load_pem_x509_certificate(authority.certificate)
    try:
        key = _elliptic(load_pem_private_key(authority.key, password=None))
    except ValueError:
        return False
    return bool(certificate.public_key() == key.public_key())


def facts_of(certificate: bytes) -> CertificateFacts:
    """Read a certificate in PEM.

    Raises:
        ValueError: when it is none.
    """
    read = x509.load_pem_x509_certificate(certificate)
    try:
        found = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        found = x509.SubjectAlternativeName([])
    return CertificateFacts(
        serial=f"{read.serial_number:x}",
        sha256=read.fingerprint(SHA256()).hex(),
        names=tuple(str(name.value) for name in found),
        validity=Validity(
            not_before=instant(read.not_valid_before_utc),
            not_after=instant(read.not_valid_after_utc),
        ),
    )


def _begun(
    key: EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, validity: Validity
) -> x509.CertificateBuilder:
    """Return what all certificates have; RFC 5280 demands the subject's key identifier of a CA."""
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromisoformat(validity.not_before))
        .not_valid_after(datetime.fromisoformat(validity.not_after))
        .add_extension(identifier, critical=False)
    )


def _usage(*, digital_signature: bool, key_cert_sign: bool, crl_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    return x509.IPAddress(IPv4Address(name)) if is_ip(name) else x509.DNSName(name)


def _name(common: str) -> x509.Name:
    # RFC 5280, appendix A.1, ub-common-name: no longer than 64.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _pem(key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _ssh_line(key: EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _elliptic(key: object) -> EllipticCurvePrivateKey:
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError("expected a key on an elliptic curve")  # noqa: TRY004 - a value of a file
    return key
