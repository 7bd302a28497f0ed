"""Stand-in until provisioning's own is merged: whether a kit's files are as they were made."""

import hashlib
from pathlib import Path

from common.kit import CHECKSUMS


def verify_kit(folder: Path) -> tuple[str, ...]:
    """Return one line per file that is missing or changed; empty for a sound kit."""
    listed = folder / CHECKSUMS
    if not listed.is_file():
        return (f"{CHECKSUMS} is missing",)
    defects = []
    for line in listed.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            defects.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            defects.append(f"{name} was changed")
    return tuple(defects)
