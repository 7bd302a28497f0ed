"""What is written down about an entry of the cache, so that damage to it is noticed."""

import hashlib
from dataclasses import field, replace
from pathlib import Path

from client.preparation.preprocess import Geometry
from common.axes import Shape
from common.codec import content_hash, read_json, record
from common.errors import ConfigError, DataError


@record
class StoredFile:
    """What a file must be, so that damage is noticed."""

    n_bytes: int
    sha256: str


@record
class Meta:
    """What an entry holds. Stays at the site."""

    geometry: Geometry
    channels: int
    shape: Shape
    """Along the network's axes."""
    labelled: bool
    foreground_voxels: dict[int, int]
    """Rows of ``foreground.npy`` per label value that occurs, lowest value first."""
    files: dict[str, StoredFile] = field(default_factory=dict)
    """The entry's other files."""
    seal: str = ""
    """SHA-256 of this record with this field empty."""


@record
class Previous:
    """Beside the entry's own files: labels that another network predicted for this case."""

    source_hash: str
    name: str
    file: StoredFile


def read_meta(folder: Path) -> Meta:
    """Return the record of the entry in `folder`, after a look at the sizes of its files.

    Raises:
        ConfigError: when there is none.
        DataError: when it or one of the files is damaged.
    """
    meta = read_json(Meta, folder / "meta.json")
    if meta.seal != _seal(meta):
        raise DataError(f"{folder}: expected a whole entry, found meta.json changed")
    for name, file in meta.files.items():
        if not _has_size(folder / name, file):
            raise DataError(f"{folder}: expected {name} with {file.n_bytes} bytes, found otherwise")
    return meta


def read_previous(folder: Path) -> Previous | None:
    """Return the record of the previous stage's labels; None when absent or damaged."""
    try:
        found = read_json(Previous, folder / "previous.json")
    except ConfigError:
        return None
    return found if _has_size(folder / found.name, found.file) else None


def unchanged(folder: Path, meta: Meta) -> bool:
    """Return whether every file of an entry, also of a previous stage, has its checksum."""
    files = dict(meta.files)
    if (previous := read_previous(folder)) is not None:
        files[previous.name] = previous.file
    try:
        return all(
            stored_file((folder / name).read_bytes()) == file for name, file in files.items()
        )
    except OSError:
        return False


def stored_file(content: bytes) -> StoredFile:
    """Return what a file with this content must be."""
    return StoredFile(n_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def sealed_meta(meta: Meta) -> Meta:
    """Return the record with its seal."""
    return replace(meta, seal=_seal(meta))


def _seal(meta: Meta) -> str:
    return content_hash(replace(meta, seal=""))


def _has_size(path: Path, file: StoredFile) -> bool:
    try:
        return path.stat().st_size == file.n_bytes
    except OSError:
        return False
