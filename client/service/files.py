"""Where the service of a site keeps its own files, all below the site's state folder."""

from dataclasses import dataclass
from pathlib import Path

from client.site import SiteConfig


@dataclass(frozen=True)
class ServiceFiles:
    """The folder of one site's service."""

    folder: Path

    @property
    def flower_home(self) -> Path:
        """Folder of Flower alone: bundles without code."""
        return self.folder / "flower"

    @property
    def secret(self) -> Path:
        """What the SuperNode and its executor share; new at every start."""
        return self.folder / "executor.secret"

    @property
    def pulse(self) -> Path:
        """Touched at every heartbeat that the coordinator has answered."""
        return self.folder / "pulse"

    @property
    def node(self) -> Path:
        """The number that the coordinator gave this node."""
        return self.folder / "node"

    @property
    def log(self) -> Path:
        """What Flower says."""
        return self.folder / "flower.log"

    @property
    def lock(self) -> Path:
        """Held as long as the site runs; holds the number of its process."""
        return self.folder / "lock"


def service_files(site: SiteConfig) -> ServiceFiles:
    """Return where the service of a site keeps its files."""
    return ServiceFiles(site.state_folder / "service")
