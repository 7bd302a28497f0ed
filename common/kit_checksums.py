"""Whether a kit is what the study lead made: its list of checksums, and the rights of its secrets.

The list has the format of ``sha256sum``, so that a hospital can check it without this program:
``sha256sum --check SHA256SUMS``. Its own SHA-256 is what two people compare over the telephone.
"""

import hashlib
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from common.errors import ConfigError
from common.kit import (
    ADMIN_TOKEN,
    CA_CERTIFICATE,
    CHECKSUMS,
    COORDINATOR_KIT,
    EXECUTOR_SECRET,
    IDENTITY_KEY,
    NODE_KEY,
    README,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SITE_KIT,
    is_private,
)

COORDINATOR_OWN = (SERVER_KEY, SERVER_CERTIFICATE, ADMIN_TOKEN, EXECUTOR_SECRET)
SITE_OWN = (NODE_KEY, IDENTITY_KEY)
"""Files of a kit that cannot be made again from the registry."""
COORDINATOR_FILES = (*COORDINATOR_OWN, CA_CERTIFICATE, COORDINATOR_KIT, README)
SITE_FILES = (*SITE_OWN, CA_CERTIFICATE, SITE_KIT, README)
"""What has to be in the list; a hospital's own `site.toml` is not."""
LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)")
GROUP = 4  # digits that a person reads out at once


def checksum_list(files: Mapping[str, bytes]) -> bytes:
    """Return the content of `SHA256SUMS` for files by name, sorted by name."""
    return "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in sorted(files.items())
    ).encode()


def kit_digest(folder: Path) -> str:
    """Return the SHA-256 of a kit's list of checksums: what ``sha256sum SHA256SUMS`` prints.

    Raises:
        ConfigError: when the folder has no list.
    """
    return hashlib.sha256(_list_of(folder)).hexdigest()


def spoken(digest: str) -> str:
    """Return a digest in groups of four digits, to be read out over the telephone."""
    return " ".join(digest[start : start + GROUP] for start in range(0, len(digest), GROUP))


def verify_kit(folder: Path) -> tuple[str, ...]:
    """Return what is wrong with a kit, one line per defect with its mending; empty if nothing is.

    A file that is missing from the folder or the list, one that was changed, and a secret that
    others may read. What the list does not name (`site.toml`, `state/`) is not looked at.

    Raises:
        ConfigError: when the folder is no kit or has no list.
    """
    listed, defects = _parsed(_list_of(folder))
    expected = _expected(folder)
    missing = sorted(set(expected) - set(listed))
    defects += [f"{CHECKSUMS}: expected {name} in it" for name in missing]
    for name, digest in sorted(listed.items()):
        defects += _defects_of(folder / name, digest)
    return tuple(defects)


def _defects_of(path: Path, digest: str) -> list[str]:
    name = path.name
    try:
        found, mode = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode
    except FileNotFoundError:
        return [f"{name}: missing; copy the whole kit again"]
    except OSError as error:
        return [f"{name}: cannot be read: {error.strerror}"]
    defects = []
    if found != digest:
        defects.append(f"{name}: changed; copy it again from the kit that was sent")
    if is_private(name) and mode & (stat.S_IRWXG | stat.S_IRWXO):
        found_mode = f"{stat.S_IMODE(mode):04o}"
        defects.append(
            f"{name}: expected rights 0600, for it is a secret, found {found_mode}; "
            f"mend with: chmod 600 {name}"
        )
    return defects


def _parsed(content: bytes) -> tuple[dict[str, str], list[str]]:
    """Return digests by name, and a defect per line that is none."""
    listed, defects = {}, []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if (match := LINE.fullmatch(line)) is None:
            defects.append(f"{CHECKSUMS}: line {number}: expected a checksum and a file name")
        else:
            listed[match[2]] = match[1]
    return listed, defects


def _expected(folder: Path) -> tuple[str, ...]:
    return COORDINATOR_FILES if (folder / COORDINATOR_KIT).exists() else SITE_FILES


def _list_of(folder: Path) -> bytes:
    try:
        return (folder / CHECKSUMS).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{folder}: expected a kit with {CHECKSUMS} in it, found {error.strerror}"
        ) from None
