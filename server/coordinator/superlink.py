"""Flower's SuperLink behind the gate: ``python -m server.coordinator.superlink KIT``.

Flower offers no public way to stand before its routes; its private hook for extensions is replaced
here. Where an installed Flower has no such hook, nothing starts: better no coordinator than an
open one.
"""

import os
import sys
from pathlib import Path

from common.errors import ConfigError, ConsiliumError
from common.files import write_atomically
from server.coordinator.kit_folder import KitFolder, flower_environment, free_port
from server.coordinator.lifeline import LIFELINE, end_with_supervisor

HOOK = "get_middleware"


def superlink_arguments(folder: KitFolder, health_address: str) -> list[str]:
    """Return the command line of Flower's SuperLink for a kit."""
    kit = folder.read()
    return [
        *("--host", kit.listen, "--port", str(kit.port)),
        *("--ssl-ca-certfile", str(folder.ca)),
        *("--ssl-certfile", str(folder.certificate)),
        *("--ssl-keyfile", str(folder.key)),
        "--enable-supernode-auth",
        *("--database", str(folder.database)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(folder.secret)),
        "--disable-runtime-dependency-installation",
        *("--health-server-address", health_address),
    ]


def install_gate(folder: KitFolder) -> None:
    """Put the gate before everything that the SuperLink will serve from this process.

    Raises:
        ConfigError: when the installed Flower has no such hook.
    """
    from flwr.superlink import extensions, main
    from starlette.middleware import Middleware

    from server.coordinator.gate import Gate
    from server.coordinator.live_kit import LiveKit

    live = LiveKit(folder.path, folder.file)
    token = folder.token.read_bytes().strip()
    if not token:
        raise ConfigError(f"{folder.token}: expected a token, found an empty file")
    gate = Middleware(Gate, kit=live, token=token, log=folder.refused)
    if not callable(getattr(extensions, HOOK, None)):
        raise ConfigError(_no_hook("flwr.superlink.extensions has no get_middleware"))
    setattr(extensions, HOOK, lambda: (gate,))
    layers = main._get_middleware()  # noqa: SLF001 - what create_app will use
    if not layers or layers[0] is not gate:
        raise ConfigError(_no_hook("flwr.superlink.main does not put its middleware first"))


def _no_hook(found: str) -> str:
    from flwr.supercore.version import package_version

    return (
        f"flwr {package_version}: expected the hook that the gate needs, found that {found}; "
        "install the version that Consilium names"
    )


def main(path: str) -> None:
    """Serve until a signal ends the process."""
    folder = KitFolder(Path(path).resolve())
    os.environ.update(flower_environment(folder))
    os.umask(0o077)
    health = f"127.0.0.1:{free_port()}"
    sys.argv = ["flower-superlink", *superlink_arguments(folder, health)]
    install_gate(folder)
    from flwr.superlink.cli.flower_superlink import flower_superlink

    write_atomically(folder.health, health.encode())
    flower_superlink()


if __name__ == "__main__":
    try:
        if LIFELINE in sys.argv:
            end_with_supervisor()
        main(sys.argv[1])
    except ConsiliumError as error:
        sys.stderr.write(f"consilium: {error}\n")
        sys.exit(error.exit_code)
