"""Which site each node is, by the key with which it was registered and not by what it says.

The coordinator's service writes it down when it registers sites. Without that service, for example
in a simulation, nobody has registered anything and a site's own word is taken.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from common.codec import read_json, write_json
from common.federation import SiteName

NODES_VARIABLE = "CONSILIUM_NODES"


def write_names(path: Path, names: Mapping[int, SiteName]) -> None:
    """Write site names by the number of their node."""
    write_json(path, {str(node): name for node, name in sorted(names.items())})


def registered_names() -> Mapping[int, SiteName] | None:
    """Return site names by the number of their node; None without a service.

    Raises:
        ConfigError: when there is a service, but what it wrote cannot be read.
    """
    path = os.environ.get(NODES_VARIABLE)
    if not path:
        return None
    return {int(node): name for node, name in read_json(dict[str, SiteName], Path(path)).items()}
