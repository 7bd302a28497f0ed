"""A coordinator's kit as `consilium provision` writes it, with keys that tests may sign with."""

import datetime as dt
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse

from common.codec import decode, write_toml
from common.kit import CoordinatorKit, Refused, SiteEntry, Validity, read_coordinator_kit
from server.coordinator.control import control_of
from server.coordinator.kit_folder import KitFolder
from server.provisioning.authority import new_authority, new_server, valid_for

PROJECT = Path(__file__).parents[3]
PROTOBUF = {"content-type": "application/protobuf"}
LONG = Validity(not_before="2020-01-01T00:00:00+00:00", not_after="2099-01-01T00:00:00+00:00")
PAST = Validity(not_before="2020-01-01T00:00:00+00:00", not_after="2021-01-01T00:00:00+00:00")
FUTURE = Validity(not_before="2098-01-01T00:00:00+00:00", not_after="2099-01-01T00:00:00+00:00")


@dataclass(frozen=True)
class MadeKit:
    """A kit, and the private keys that are elsewhere in real life."""

    folder: KitFolder
    keys: dict[str, ec.EllipticCurvePrivateKey]
    port: int

    @property
    def token(self) -> str:
        return self.folder.token.read_text()

    def change(self, **fields: object) -> None:
        """Replace fields of coordinator.toml."""
        kit = read_coordinator_kit(self.folder.path)
        write_toml(self.folder.file, replace(kit, **fields))  # type: ignore[arg-type]

    def change_site(self, name: str, **fields: object) -> None:
        """Replace fields of a site's entry."""
        sites = read_coordinator_kit(self.folder.path).sites
        self.change(sites={**sites, name: replace(sites[name], **fields)})  # type: ignore[arg-type]

    def public_key(self, name: str) -> bytes:
        """Return a site's public key as Flower writes it."""
        return (
            self.keys[name]
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    def ssh_line(self, name: str) -> str:
        """Return a site's public key as kits write it."""
        return ssh_line(self.keys[name])

    def signed(self, name: str, at: dt.datetime | None = None) -> dict[str, str]:
        """Return the headers that a site's node puts into a request."""
        time = (at or dt.datetime.now(dt.UTC)).isoformat()
        signature = self.keys[name].sign(time.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": b64encode(self.public_key(name)).decode(),
            "flwr-timestamp": time,
            "flwr-signature": b64encode(signature).decode(),
        }


@pytest.fixture(scope="session")
def make_kit() -> Callable[[Path], MadeKit]:
    """Return what makes a kit in a folder."""
    return _made


@pytest.fixture
def kit(tmp_path: Path) -> MadeKit:
    """Return a kit with sites alpha, beta, revoked, expired and early; stranger has only a key."""
    return _made(tmp_path / "coordinator")


def _made(path: Path) -> MadeKit:
    folder = KitFolder(path)
    folder.path.mkdir()
    names = ("alpha", "beta", "revoked", "expired", "early", "stranger")
    keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in names}
    _write_certificates(folder)
    folder.token.write_text(secrets.token_hex(32))
    folder.secret.write_bytes(secrets.token_bytes(32))
    entries = {
        name: SiteEntry(public_key=ssh_line(keys[name]), validity=LONG) for name in names[:-1]
    }
    entries["revoked"] = replace(entries["revoked"], revoked="2024-01-01T00:00:00+00:00")
    entries["expired"] = replace(entries["expired"], validity=PAST)
    entries["early"] = replace(entries["early"], validity=FUTURE)
    made = CoordinatorKit(
        federation="gliomas",
        address=f"127.0.0.1:{_free_port()}",
        listen="0.0.0.0",  # noqa: S104 - the gate is what is tested
        validity=LONG,
        version="0.1.0",
        package_sha256="0" * 64,
        max_message_mb=8.0,
        sites=entries,
    )
    write_toml(folder.file, made)
    return MadeKit(folder, keys, made.port)


def ssh_line(key: ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def _write_certificates(folder: KitFolder) -> None:
    now = dt.datetime.now(dt.UTC)
    authority = new_authority("gliomas", now)
    server = new_server(authority, ("127.0.0.1", "localhost"), valid_for(300, now))
    folder.ca.write_bytes(authority.certificate)
    folder.certificate.write_bytes(server.certificate)
    folder.key.write_bytes(server.key)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Served:
    """A running SuperLink with its kit."""

    kit: MadeKit
    process: subprocess.Popen[bytes]
    output: Path

    def ask(self, method, path, *, source="127.0.0.2", headers=None, content=None):
        """Send a request from one of this machine's addresses."""
        context = ssl.create_default_context(cafile=str(self.kit.folder.ca))
        transport = httpx.HTTPTransport(verify=context, local_address=source)
        with httpx.Client(transport=transport, timeout=20) as client:
            url = f"https://127.0.0.1:{self.kit.port}{path}"
            return client.request(method, url, headers=headers, content=content)

    def refusal(self, *args, status=403, **kwargs) -> Refused:
        """Send a request that must be refused; return why."""
        answer = self.ask(*args, **kwargs)
        assert answer.status_code == status, answer.text
        return decode(Refused, answer.json(), source="answer")

    def fleet(self, call, request, *, site="alpha", headers=None, **kwargs):
        signed = self.kit.signed(site) if headers is None else headers
        content = request.SerializeToString()
        path = f"/v1/fleet/{call}"
        return self.ask("POST", path, headers={**PROTOBUF, **signed}, content=content, **kwargs)

    def activate(self, site="alpha") -> int:
        """Return a site's node, which is online from now on."""
        with control_of(self.kit.folder) as control:
            node = next(node for node in control.nodes() if node.name == site)
        if node.status == "online":
            return node.id
        request = ActivateNodeRequest(public_key=self.kit.public_key(site), heartbeat_interval=30)
        answer = self.fleet("activate-node", request, site=site)
        assert answer.status_code == 200, answer.text
        return ActivateNodeResponse.FromString(answer.content).node_id

    def node_states(self) -> dict[bytes, str]:
        with control_of(self.kit.folder) as control:
            return {node.public_key: node.status for node in control.nodes()}


@pytest.fixture(scope="module")
def served(make_kit, tmp_path_factory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("gate")
    kit = make_kit(home / "coordinator")
    output = home / "superlink.log"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.coordinator.superlink", str(kit.folder.path)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "FORWARDED_ALLOW_IPS": "*"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    served = Served(kit, process, output)
    try:
        wait_until_it_answers(served)
        with control_of(kit.folder) as control:
            assert control.register(kit.folder.read()) != []
        yield served
    finally:
        process.terminate()
        process.wait(20)


def wait_until_it_answers(served: Served) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert served.process.poll() is None, served.output.read_text()
        assert time.monotonic() < deadline, served.output.read_text()
        try:
            assert served.ask("GET", "/health").status_code == 200
        except httpx.ConnectError:
            time.sleep(0.2)
        else:
            return
