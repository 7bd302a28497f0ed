"""A kit as provisioning makes it, and a coordinator's gate on loopback that says hello."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from client.site import SiteConfig
from common.codec import encode, write_toml
from common.installed import package_digest, package_version
from common.kit import CHECKSUMS, HELLO_PATH, Hello, Refused, SiteKit, Validity
from common.kit_checksums import SITE_FILES, checksum_list
from server.provisioning.authority import (
    KeyPair,
    instant,
    new_authority,
    new_identity,
    new_node_key,
    new_server,
)
from simulation.simulate import OPEN_POLICY

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


class Authority:
    """A certificate authority of a federation."""

    def __init__(self, name: str) -> None:
        self._made = new_authority(name, NOW)

    @property
    def pem(self) -> bytes:
        return self._made.certificate

    def server_files(self, folder: Path, host="127.0.0.1", start=NOW - DAY, end=NOW + DAY):
        """Write a server's certificate and key, and return their paths."""
        server = new_server(self._made, (host,), dates(start, end))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "server.crt").write_bytes(server.certificate)
        (folder / "server.key").write_bytes(server.key)
        return folder / "server.crt", folder / "server.key"


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority("federation A")


@pytest.fixture(scope="session")
def other_authority() -> Authority:
    return Authority("federation B")


@dataclass
class Gate:
    """A TLS server that answers every hello with what `answer` holds."""

    port: int
    answer: tuple[int, object] = (404, {})
    headers: list[dict[str, str]] = field(default_factory=list)

    def knows(self, kit: SiteKit, ahead: timedelta = timedelta()) -> None:
        self.answer = (200, hello_to(kit, ahead))

    def refuses(self, reason: str, says: str = "") -> None:
        self.answer = (403, encode(Refused(reason=reason, says=says)))


def hello_to(kit: SiteKit, ahead: timedelta = timedelta()) -> object:
    time = (datetime.now(UTC) + ahead).isoformat(timespec="seconds")
    fields = {"version": kit.version, "package_sha256": kit.package_sha256, "time": time}
    return encode(Hello(federation=kit.federation, site=kit.site, **fields))


@pytest.fixture
def start_gate() -> Iterator[Callable[[Path, Path], Gate]]:
    """Return a function that starts a gate with a certificate and a key."""
    servers = []

    def start(certificate: Path, key: Path) -> Gate:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = gate.answer if self.path == HELLO_PATH else (404, {})
                gate.headers.append({name.lower(): value for name, value in self.headers.items()})
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that does not trust us hangs up; that is what is tested."""

        server = Server(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        gate = Gate(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return gate

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def gate(start_gate, authority, tmp_path) -> Gate:
    return start_gate(*authority.server_files(tmp_path / "server"))


@dataclass
class MadeKit:
    folder: Path
    kit: SiteKit

    def write(self, **fields: object) -> None:
        """Change fields of kit.toml and of the checksums."""
        self.kit = SiteKit(**{**self.kit.__dict__, **fields})
        write_toml(self.folder / "kit.toml", self.kit)
        seal(self.folder)


def seal(folder: Path) -> None:
    (folder / CHECKSUMS).write_bytes(
        checksum_list({name: (folder / name).read_bytes() for name in SITE_FILES})
    )


@pytest.fixture
def make_kit(tmp_path, authority, tiny_study) -> Callable[[int], MadeKit]:
    """Return a function that makes a kit for a coordinator at a port of 127.0.0.1."""

    def make(port: int, name: str = "kit") -> MadeKit:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "ca.crt").write_bytes(authority.pem)
        write_private(folder / "site.key", new_node_key())
        write_private(folder / "identity.key", new_identity())
        (folder / "README.md").write_text("Your kit.\n")
        site = SiteConfig(
            name="hospital-1",
            data=str(tiny_study.data),
            state=str(folder / "state"),
            policy=OPEN_POLICY,
            identity="identity.key",
        )
        write_toml(folder / "site.toml", site)
        kit = SiteKit(
            federation="brain-1",
            site="hospital-1",
            coordinator=f"127.0.0.1:{port}",
            validity=dates(NOW - DAY, NOW + 300 * DAY),
            version=package_version(),
            package_sha256=package_digest(),
            max_message_mb=512.0,
            peers={},
        )
        write_toml(folder / "kit.toml", kit)
        seal(folder)
        return MadeKit(folder, kit)

    return make


def dates(start: datetime, end: datetime) -> Validity:
    return Validity(not_before=instant(start), not_after=instant(end))


def write_private(path: Path, key: KeyPair) -> None:
    path.touch(mode=0o600)
    path.write_bytes(key.private)
