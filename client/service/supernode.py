"""Flower's SuperNode as a site runs it: `python -m client.service.supernode KIT`.

Nothing is reported or installed, a bundle with code is answered by an error, every message that
leaves is recorded before, and the interface between the SuperNode and its tasks is open to this
machine and to the holder of a secret only.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from client.service.environment import environment, prepare
from client.service.files import ServiceFiles, service_files
from client.service.processes import die_with_parent
from client.site import load_site, site_log
from common.errors import ConsiliumError
from common.files import make_folder
from common.kit import CA_CERTIFICATE, NODE_KEY, SITE_FILE, SiteKit, read_site_kit

LOOPBACK, ENDED = "127.0.0.1", 1


def launch(folder: Path) -> None:
    """Run the SuperNode of a kit until it ends.

    Raises:
        ConfigError: for a kit or a Flower that does not fit.
    """
    kit, site = read_site_kit(folder), load_site(folder / SITE_FILE)
    files = service_files(site)
    make_folder(files.flower_home)
    prepare(files)
    from client.egress.recording import install  # brings Flower, which reads the environment
    from client.service import hooks

    hooks.demand_hooks()
    hooks.refuse_messages(kit.max_message_mb * 2**20, site_log(site).error)
    hooks.keep_pulse(files.pulse)
    hooks.sign_off_before_signing_on(files.node)
    hooks.keep_trying()
    install(site.egress_ledger)
    hooks.wait_for_own_replies()
    hooks.look_again_soon()
    _write_secret(files)
    address = f"{LOOPBACK}:{_free_port()}"
    sys.argv = ["flower-supernode", *_arguments(kit, folder, address, files)]
    _start_executor(address, files)
    main: Any = import_module("flwr.supernode.cli.flower_supernode")
    main.flower_supernode()
    sys.stdout.flush()
    os._exit(ENDED)  # Flower returns after an error, but its server's thread would live on


def _arguments(kit: SiteKit, folder: Path, address: str, files: ServiceFiles) -> list[str]:
    host, _, port = address.rpartition(":")
    whole = folder.resolve()
    arguments = {
        "--superlink": kit.coordinator,
        "--root-certificates": str(whole / CA_CERTIFICATE),
        "--auth-supernode-private-key": str(whole / NODE_KEY),
        "--node-config": f'site="{whole / SITE_FILE}"',
        "--isolation": "process",
        "--superexec-auth-secret-file": str(files.secret),
        "--host": host,
        "--port": port,
    }
    return [part for pair in arguments.items() for part in pair]


def _write_secret(files: ServiceFiles) -> None:
    """Write a new secret that only this user can read."""
    files.secret.unlink(missing_ok=True)
    handle = os.open(files.secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(32))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _start_executor(address: str, files: ServiceFiles) -> None:
    """Start what runs the tasks; when it ends, this process ends too, or it would wait for it."""
    command = [sys.executable, "-m", "client.service.executor", address, str(files.folder)]
    child = subprocess.Popen([*command, str(os.getpid())], env=environment(files))

    def watch() -> None:
        child.wait()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid())
    try:
        launch(Path(sys.argv[1]))
    except ConsiliumError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
