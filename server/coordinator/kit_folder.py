"""Where everything of the coordinator lies: its kit, and below it the state of its programs."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.files import make_folder
from common.kit import (
    ADMIN_TOKEN,
    CA_CERTIFICATE,
    COORDINATOR_KIT,
    EXECUTOR_SECRET,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    STATE,
    CoordinatorKit,
    read_coordinator_kit,
)

KIT_VARIABLE = "CONSILIUM_KIT"


@dataclass(frozen=True)
class KitFolder:
    """Paths of a coordinator's kit."""

    path: Path

    def read(self) -> CoordinatorKit:
        """Read the kit, after looking that every file is there.

        Raises:
            ConfigError: with one line per file that is missing, or for a kit that does not fit.
        """
        kit = read_coordinator_kit(self.path)
        needed = (self.ca, self.certificate, self.key, self.token, self.secret)
        if missing := [path for path in needed if not path.is_file()]:
            raise ConfigError("\n".join(f"{path}: missing from the kit" for path in missing))
        return kit

    @property
    def file(self) -> Path:
        """What the coordinator knows of itself and of its sites."""
        return self.path / COORDINATOR_KIT

    @property
    def ca(self) -> Path:
        """The federation's certificate authority."""
        return self.path / CA_CERTIFICATE

    @property
    def certificate(self) -> Path:
        """The coordinator's certificate."""
        return self.path / SERVER_CERTIFICATE

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.path / SERVER_KEY

    @property
    def token(self) -> Path:
        """Secret that every request for control carries."""
        return self.path / ADMIN_TOKEN

    @property
    def secret(self) -> Path:
        """Secret that the executor shares with the SuperLink."""
        return self.path / EXECUTOR_SECRET

    @property
    def state(self) -> Path:
        """Folder that the running programs own."""
        return self.path / STATE

    @property
    def database(self) -> Path:
        """The SuperLink's memory; it survives every crash."""
        return self.state / "superlink.db"

    @property
    def flower(self) -> Path:
        """Flower's own files."""
        return self.state / "flower"

    @property
    def logs(self) -> Path:
        """Folder of one log per program."""
        return self.state / "logs"

    @property
    def runs(self) -> Path:
        """Which runs are wanted."""
        return self.state / "runs.json"

    @property
    def nodes(self) -> Path:
        """Which site each node is."""
        return self.state / "nodes.json"

    @property
    def refused(self) -> Path:
        """What the gate refused."""
        return self.state / "refused.jsonl"

    @property
    def health(self) -> Path:
        """Where the SuperLink answers whether it is well: an address of this machine only."""
        return self.state / "health.address"

    @property
    def supervisor(self) -> Path:
        """Which process keeps everything going, and which children it has."""
        return self.state / "supervisor.json"

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of this kit."""
        return self.state / ".lock"


def find_kit(option: Path | None) -> KitFolder:
    """Return the kit that was named, else CONSILIUM_KIT, else the current folder.

    Raises:
        ConfigError: when none of them is a coordinator's kit.
    """
    named = option or (Path(os.environ[KIT_VARIABLE]) if os.environ.get(KIT_VARIABLE) else None)
    folder = (named or Path()).resolve()
    if named is None and not (folder / COORDINATOR_KIT).is_file():
        raise ConfigError(
            f"--kit: expected a coordinator's kit, here, as {KIT_VARIABLE} or in the current "
            f"folder; found no {COORDINATOR_KIT} in {folder}"
        )
    read_coordinator_kit(folder)
    return KitFolder(folder)


def local_address(kit: CoordinatorKit) -> str:
    """Return the host and port at which this machine reaches its own SuperLink."""
    everywhere = kit.listen == "0.0.0.0"  # noqa: S104 - compared, not bound
    return f"{'127.0.0.1' if everywhere else kit.listen}:{kit.port}"


def free_port() -> int:
    """Return a port of this machine's own that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def flower_environment(folder: KitFolder) -> dict[str, str]:
    """Return the variables that keep Flower silent and below the kit; set before flwr is imported.

    It sends no telemetry, asks for no update, installs nothing, and believes no header about who
    the caller is.
    """
    make_folder(folder.flower)
    return {
        "FLWR_HOME": str(folder.flower),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "FORWARDED_ALLOW_IPS": "",
    }
