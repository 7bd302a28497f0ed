"""Certificates as a TLS client judges them in its strictest mode, over real connections."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from common.kit import Validity
from common.secure_sum import MaskKey, check_signature, signature_of
from server.provisioning.authority import (
    Certified,
    facts_of,
    identity_public_key,
    new_authority,
    new_identity,
    new_node_key,
    new_server,
    node_public_key,
    signs,
    valid_for,
)

NOW = datetime.now(UTC)
NAMES = ("federation.example.org", "localhost", "127.0.0.1")
Serve = Callable[[Certified], int]


@pytest.fixture(scope="module")
def authority() -> Certified:
    return new_authority("glioma", NOW)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return what starts a TLS server for one connection and returns its port."""
    threads = []

    def start(server: Certified) -> int:
        (tmp_path / "crt").write_bytes(server.certificate)
        (tmp_path / "key").write_bytes(server.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
        listener = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            with listener, listener.accept()[0] as plain, suppress(OSError):
                context.wrap_socket(plain, server_side=True).close()

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(10)


def handshake(port: int, name: str, trusted: bytes) -> str | None:
    """Connect as a site does, with the strictest checks; return the TLS version."""
    context = ssl.create_default_context(cadata=trusted.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secured,
    ):
        return secured.version()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_and_address_of_the_certificate_is_accepted(
    authority: Certified, serve: Serve, name: str
) -> None:
    server = new_server(authority, NAMES, valid_for(30, NOW))
    assert handshake(serve(server), name, authority.certificate) == "TLSv1.3"


def test_another_name_is_refused(authority: Certified, serve: Serve) -> None:
    port = serve(new_server(authority, NAMES, valid_for(30, NOW)))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(port, "other.example.org", authority.certificate)


def test_another_authority_of_the_same_federation_is_refused(
    authority: Certified, serve: Serve
) -> None:
    port = serve(new_server(new_authority("glioma", NOW), NAMES, valid_for(30, NOW)))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(port, "localhost", authority.certificate)


def test_an_expired_certificate_is_refused(authority: Certified, serve: Serve) -> None:
    server = new_server(authority, NAMES, valid_for(30, NOW - timedelta(days=31)))
    port = serve(server)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        handshake(port, "localhost", authority.certificate)


def test_a_certificate_of_tomorrow_is_refused(authority: Certified, serve: Serve) -> None:
    port = serve(new_server(authority, NAMES, valid_for(30, NOW + timedelta(days=1))))
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        handshake(port, "localhost", authority.certificate)


def test_a_servers_certificate_cannot_sign_others(authority: Certified, serve: Serve) -> None:
    server = new_server(authority, NAMES, valid_for(30, NOW))
    chained = new_server(server, NAMES, valid_for(30, NOW))
    port = serve(Certified(chained.key, chained.certificate + server.certificate))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(port, "localhost", authority.certificate)


def test_what_a_certificate_says_can_be_read(authority: Certified) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    facts = facts_of(new_server(authority, NAMES, valid_for(365, moment)).certificate)
    assert facts.names == NAMES
    assert facts.validity == Validity(
        not_before="2026-03-01T11:00:00+00:00", not_after="2027-03-01T12:00:00+00:00"
    )
    assert len(facts.sha256) == 64


def test_serial_numbers_are_random(authority: Certified) -> None:
    serials = {
        facts_of(new_server(authority, NAMES, valid_for(1, NOW)).certificate).serial
        for _ in range(5)
    }
    assert len(serials) == 5
    assert all(len(serial) > 30 for serial in serials)


def test_the_authority_lasts_ten_years_and_signs_no_other_authority() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    certificate = new_authority("glioma", moment).certificate
    assert facts_of(certificate).validity.not_after == "2036-03-01T00:00:00+00:00"
    read = x509.load_pem_x509_certificate(certificate)
    constraints = read.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        0,
    )


def test_nothing_outlasts_the_authority() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    validity = valid_for(365, moment, until="2026-04-01T00:00:00+00:00")
    assert validity.not_after == "2026-04-01T00:00:00+00:00"


def test_an_authoritys_key_is_known_by_its_certificate(authority: Certified) -> None:
    other = new_authority("glioma", NOW)
    assert signs(authority)
    assert not signs(Certified(other.key, authority.certificate))
    assert not signs(Certified(b"nothing", authority.certificate))


def test_a_sites_key_is_read_as_flowers_supernode_and_register_read_it() -> None:
    pair = new_node_key()
    private = load_ssh_private_key(pair.private, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert load_ssh_public_key(pair.public.encode()) == private.public_key()
    assert pair.public.startswith("ecdsa-sha2-nistp384 ")
    assert node_public_key(pair.private) == pair.public


def test_an_identity_signs_for_a_secure_sum(tmp_path: Path) -> None:
    pair = new_identity()
    (tmp_path / "identity.key").write_bytes(pair.private)
    key = MaskKey(site="north", public_key="0" * 64)
    sites, nonce = ("north", "south"), "0" * 32
    signature = signature_of(tmp_path / "identity.key", "run", nonce, sites, key)
    signed = MaskKey(site="north", public_key="0" * 64, signature=signature)
    check_signature(pair.public, "run", nonce, sites, signed)
    assert identity_public_key(pair.private) == pair.public


@pytest.mark.parametrize("read", [node_public_key, identity_public_key])
def test_a_file_that_is_no_key_is_refused(read: Callable[[bytes], str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(b"not a key")


def test_a_private_key_is_not_in_the_text_of_a_record(authority: Certified) -> None:
    assert "PRIVATE" not in repr(authority)
    assert "PRIVATE" not in repr(new_node_key())
