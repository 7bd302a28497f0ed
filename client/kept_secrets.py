"""Secrets of a site's own, each drawn or made once and kept where only this user reads it."""

import os
import secrets
from pathlib import Path

from common.errors import DiskError
from common.files import make_folder

SECRET_BYTES = 32


def kept_secret(path: Path) -> bytes:
    """Return a secret word of this site's own, drawn when it is first asked for.

    Raises:
        DiskError: when it cannot be written, or is damaged.
    """
    write_once(path, secrets.token_bytes(SECRET_BYTES))
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise DiskError(f"{path}: expected {SECRET_BYTES} bytes, found {len(secret)}; delete it")
    return secret


def write_once(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, unless it is there; the first writer wins."""
    make_folder(path.parent)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return
    except OSError as error:
        raise DiskError(f"{path}: cannot be written: {error.strerror}") from None
