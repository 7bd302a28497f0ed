"""Which package runs here: one digest over the program text that is installed.

A kit names the digest of the package that the federation agreed on. What a hospital runs is what
it installed; this says whether that is what the kit means.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from common.errors import ConfigError

ROOMS = ("client", "common", "server", "simulation")
FRONT_DOOR = "consilium"


def package_version() -> str:
    """Return the version of the installed distribution.

    Raises:
        ConfigError: when the program was not installed.
    """
    try:
        return version("consilium")
    except PackageNotFoundError:
        raise ConfigError("consilium: expected an installed package, found none") from None


def package_digest() -> str:
    """Return the SHA-256 over names and contents of every file of the installed package.

    64 hexadecimal digits; the same on every machine with the same package, wherever it lies and
    whether it was installed from a wheel or a checkout.
    """
    total = hashlib.sha256()
    for name, path in sorted(package_files().items()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{content}  {name}\n".encode())
    return total.hexdigest()


def package_files() -> dict[str, Path]:
    """Return the files of the package by their name in it, for example ``common/kit.py``.

    Raises:
        ConfigError: when a room is not ours or lies somewhere else than the others.
    """
    front = _origin(FRONT_DOOR)
    files = {front.name: front}
    for room in ROOMS:
        folder = _origin(room).parent
        if folder.parent != front.parent:
            raise ConfigError(
                f"package {room}: expected beside {front}, found {folder}; another package of that "
                "name is in the way"
            )
        files |= {
            path.relative_to(front.parent).as_posix(): path
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        }
    return files


def _origin(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"package {module}: expected beside the others, found none")
    return Path(spec.origin).resolve()
