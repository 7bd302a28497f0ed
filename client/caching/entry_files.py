"""Writing an entry of the cache: its arrays, its record, and what a previous stage predicted."""

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np

from client.caching.cache import CacheEntry, compressed
from client.caching.entry_record import Meta, Previous, sealed_meta, stored_file
from client.caching.scratch import scratch
from client.preparation.preprocess import Index, Prepared, foreground_index
from common.axes import LabelMap
from common.codec import canonical_json, write_json
from common.errors import DiskError
from common.files import write_atomically

Files: TypeAlias = dict[str, bytes]
"""Content by file name."""


def arrays_of(prepared: Prepared, values: Sequence[int], *, by_slice: bool) -> tuple[Meta, Files]:
    """Return an entry's record and the content of its other files.

    Args:
        prepared: a case on the network's grid.
        values: labels whose voxels are indexed.
        by_slice: whether single slices will be read (`client.caching.cache.compressed`).
    """
    labels, index = prepared.labels, dict[int, Index]()
    files = {"image.b2nd": compressed(prepared.image, by_slice=by_slice)}
    if labels is not None:
        files["labels.b2nd"] = compressed(labels, by_slice=by_slice)
        index = foreground_index(labels, values)
    if index:
        files["foreground.npy"] = _npy([index[value] for value in sorted(index)])
    channels, a, b, c = prepared.image.shape
    meta = Meta(
        geometry=prepared.geometry,
        channels=channels,
        shape=(a, b, c),
        labelled=labels is not None,
        foreground_voxels={value: len(rows) for value, rows in index.items()},
        files={name: stored_file(content) for name, content in files.items()},
    )
    return sealed_meta(meta), files


def write_entry(place: Path, cache: Path, meta: Meta, files: Files) -> None:
    """Write an entry beside its place, then rename it; whoever comes second is discarded.

    Nothing is forced onto the disk file by file, which takes longer than preparing a small case:
    what a power cut leaves too short is noticed by its size and made again.

    Args:
        place: of the entry, below `cache`.
        cache: folder of the whole cache.
        meta: the entry's record.
        files: its other files.

    Raises:
        DiskError: when the disk is full or cannot be written; nothing is left then.
    """
    with scratch(cache) as temporary:
        try:
            _write_files(temporary / "entry", files | {"meta.json": canonical_json(meta)})
            place.parent.mkdir(exist_ok=True)
            (temporary / "entry").rename(place)
        except OSError as error:
            if not place.exists():
                raise DiskError(f"{place}: cannot be written: {error.strerror}") from None


def discard_entry(place: Path, cache: Path) -> None:
    """Remove an entry at once, though not its files one by one under a reader's eyes."""
    with scratch(cache) as temporary, suppress(FileNotFoundError):  # another process was quicker
        place.rename(temporary / "damaged")


def add_previous(entry: CacheEntry, labels: LabelMap, source_hash: str) -> CacheEntry:
    """Keep the labels that a previous stage predicted for a case, instead of earlier ones.

    Args:
        entry: of the case.
        labels: on the entry's own grid.
        source_hash: says which weights predicted them.

    Returns:
        The entry, opened anew.

    Raises:
        ValueError: when the labels are not on the entry's grid.
        DiskError: when they cannot be written.
    """
    if labels.shape != entry.shape or labels.dtype != np.uint8:
        raise ValueError(f"expected uint8 of {entry.shape}, found {labels.dtype} {labels.shape}")
    content = compressed(labels, by_slice=False)
    file = stored_file(content)
    name = f"previous-{file.sha256[:16]}.b2nd"
    with scratch(entry.folder.parents[1]) as temporary:
        write_atomically(temporary / name, content)
        write_json(
            temporary / "previous.json", Previous(source_hash=source_hash, name=name, file=file)
        )
        (temporary / name).replace(entry.folder / name)
        (temporary / "previous.json").replace(entry.folder / "previous.json")  # from now on it is
    for other in entry.folder.glob("previous-*.b2nd"):
        if other.name != name:
            other.unlink(missing_ok=True)
    return CacheEntry(entry.folder, entry.meta, entry.in_memory)


def _write_files(folder: Path, files: Files) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _npy(rows: Sequence[Index]) -> bytes:
    file = BytesIO()
    np.save(file, np.concatenate(rows), allow_pickle=False)
    return file.getvalue()
