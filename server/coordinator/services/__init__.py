"""Service files that keep a coordinator running on a machine of its own, filled in for a kit."""

import getpass
import sys
from importlib.resources import files
from string import Template

from server.coordinator.kit_folder import KitFolder

UNIT, CONTAINER = "consilium-coordinator.service", "Containerfile"


def systemd_unit(folder: KitFolder) -> str:
    """Return the systemd unit for a kit, for this user and this installation.

    Raises:
        ConfigError: when the kit cannot be read.
    """
    kit = folder.read()
    return _template(UNIT).substitute(
        federation=kit.federation,
        user=getpass.getuser(),
        folder=str(folder.path).replace("%", "%%"),  # is not unquoted there
        python=_quoted(sys.executable).replace("$", "$$"),  # commands have variables
        command_kit=_quoted(str(folder.path)).replace("$", "$$"),
        kit=_quoted(str(folder.path)),
    )


def container_file(folder: KitFolder) -> str:
    """Return the Containerfile for a kit's version; errors as in `systemd_unit`."""
    kit = folder.read()
    return _template(CONTAINER).substitute(version=kit.version, folder=folder.path)


def _template(name: str) -> Template:
    return Template(files(__name__).joinpath(name).read_text(encoding="utf-8"))


def _quoted(word: str) -> str:
    """Return a word as systemd reads it back: it replaces % and what follows a backslash."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
