"""A site's cache of prepared cases: compressed arrays on disk, read patch by patch.

An entry lies at ``<folder>/<plan hash>/<content hash>/`` and holds ``image.b2nd``,
``labels.b2nd``, ``foreground.npy`` and ``meta.json``. It is written into a temporary neighbour
and renamed, so it is whole or absent; a case's name is nowhere in it. All of it stays at the
site. This is the only file that knows blosc2.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, Final, TypeAlias

import blosc2
import numpy as np
from numpy.typing import NDArray

from client.nifti import read_labels, read_scan, same_grid
from client.preprocess import Geometry, Index, Prepared, foreground_index, prepare
from common.axes import Image, LabelMap, Shape
from common.case import Case
from common.codec import canonical_json, read_json, record, write_json
from common.errors import DataError, Defect, DiskError
from common.files import write_atomically
from common.plan import Configuration, Plan
from common.task import Task

SCHEMA: Final = 1  # raised whenever preparation changes, so that older entries are not taken
CHUNK_VOXELS: Final = 64  # per axis: 1 MiB of float32; measured on 128^3 patches of BraTS
BLOCK_VOXELS: Final = 32  # per axis: 128 KiB, fits a second-level cache
CODEC: Final = blosc2.Codec.LZ4  # BraTS shrinks 3-fold; Zstandard: 4-fold, reads half as fast
ABANDONED_S: Final = 86_400  # a temporary folder this old belongs to a process that was killed
GIB: Final = 2**30

Slices3: TypeAlias = tuple[slice, slice, slice]
Progress: TypeAlias = Callable[[int, int], None]


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


@dataclass(frozen=True, eq=False)
class CacheEntry:
    """One prepared case; its arrays are opened when they are first needed."""

    folder: Path
    meta: Meta
    in_memory: bool = False
    """Whether the arrays are decompressed once and kept, instead of read patch by patch."""

    @property
    def shape(self) -> Shape:
        """Voxels along the network's axes."""
        return self.meta.shape

    @property
    def nbytes(self) -> int:
        """Size of image and labels when decompressed."""
        return _nbytes(self.meta.channels, self.shape)

    def image(self, slices: Slices3) -> Image:
        """Return all channels of a region, axes (channel, network axes)."""
        region: Image = self._image[(slice(None), *slices)]
        return region

    def labels(self, slices: Slices3) -> LabelMap:
        """Return the labels of a region.

        Raises:
            DataError: when the case has no reference segmentation.
        """
        if not self.meta.labelled:
            raise DataError(f"{self.folder}: expected a labelled case, found one without labels")
        region: LabelMap = self._labels[slices]
        return region

    @cached_property
    def foreground(self) -> Mapping[int, Index]:
        """Positions (n, 3) of voxels of each label value that occurs, along the network's axes."""
        counts = self.meta.foreground_voxels
        if not counts:
            return {}
        index = np.load(self.folder / "foreground.npy", mmap_mode="r", allow_pickle=False)
        values = sorted(counts)
        ends = np.cumsum([counts[value] for value in values])[:-1]
        return dict(zip(values, np.split(index, ends), strict=True))

    @cached_property
    def _image(self) -> Any:
        return _open(self.folder / "image.b2nd", in_memory=self.in_memory)

    @cached_property
    def _labels(self) -> Any:
        return _open(self.folder / "labels.b2nd", in_memory=self.in_memory)


def open_entry(folder: Path) -> CacheEntry:
    """Return the entry that lies in `folder`.

    Raises:
        ConfigError: when there is none.
    """
    return CacheEntry(folder, read_json(Meta, folder / "meta.json"))


def keep_in_memory(entries: Sequence[CacheEntry], budget_bytes: int) -> tuple[CacheEntry, ...]:
    """Return the entries, the first of them kept decompressed as far as the budget reaches.

    Reading a patch of a small case costs more in opening chunks than in copying voxels, so a data
    set that fits is best kept whole.
    """
    kept, left_bytes = [], budget_bytes
    for entry in entries:
        in_memory = entry.nbytes <= left_bytes
        left_bytes -= entry.nbytes if in_memory else 0
        kept.append(replace(entry, in_memory=in_memory))
    return tuple(kept)


def prepare_dataset(
    cases: Sequence[Case],
    task: Task,
    plan: Plan,
    configuration: Configuration,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> tuple[CacheEntry, ...]:
    """Prepare every case that the cache does not hold yet.

    Safe to stop and start again at any time, and to run twice at once.

    Args:
        cases: as found in the data folder.
        task: names channels and labels.
        plan: how to prepare; its hash names the folder.
        configuration: which of the plan's configurations.
        folder: of the cache; made when absent.
        progress: called with (cases done, all cases) after every case.

    Returns:
        One entry per case, in the order of `cases`.

    Raises:
        DiskError: when the disk has no room, before anything is written, or fills up.
        DataError: for a case that cannot be read.
    """
    places = [_place(case, task, plan, configuration, folder) for case in cases]
    missing = sum(not place.exists() for place in places)
    check_space(folder, missing * _nbytes(len(task.channels), configuration.median_shape))
    _sweep(folder / plan.hash[:16])
    entries = []
    for case in cases:
        entries.append(prepare_case(case, task, plan, configuration, folder))
        if progress is not None:
            progress(len(entries), len(cases))
    return tuple(entries)


def prepare_case(
    case: Case, task: Task, plan: Plan, configuration: Configuration, folder: Path
) -> CacheEntry:
    """Return the case's entry, made now if the cache does not hold it; see `prepare_dataset`."""
    place = _place(case, task, plan, configuration, folder)
    if not place.exists():
        _write(place, _read_and_prepare(case, task, plan, configuration), task)
    return open_entry(place)


def check_space(folder: Path, needed_bytes: int) -> None:
    """Stop before starting when the disk under `folder` cannot hold what is to be written.

    Raises:
        DiskError: with what is needed and what is free.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        raise DiskError(
            f"{folder}: the cache needs {_size(needed_bytes)}, {_size(free_bytes)} free; "
            "expected a folder on a larger disk"
        )


def _size(n_bytes: int | float) -> str:
    """Return a size in words, to one decimal."""
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / GIB * 1024:.1f} MiB"


def _read_and_prepare(case: Case, task: Task, plan: Plan, configuration: Configuration) -> Prepared:
    scan = read_scan(case, len(task.channels))
    if case.label is None:
        return prepare(scan.image, scan.spacing_mm, None, plan, configuration)
    labels, grid = read_labels(case.label, task.label_mapping)
    if difference := same_grid(scan.grid, grid):
        defect = Defect(case.name, str(case.label), "the grid of the image", difference)
        raise DataError("The data cannot be used:", [defect])
    return prepare(scan.image, scan.spacing_mm, labels, plan, configuration)


def _place(case: Case, task: Task, plan: Plan, configuration: Configuration, folder: Path) -> Path:
    """Name an entry by all that its content depends on: rules, files, and nothing of the name."""
    rules = [SCHEMA, configuration, task.label_mapping, task.foreground_labels]
    digest = hashlib.sha256(canonical_json(rules))
    for path in (*case.images, *([case.label] if case.label else [])):
        try:
            facts = path.stat()
            digest.update(_file_digest(path, facts.st_size, facts.st_mtime_ns))
        except OSError as error:
            defect = Defect(case.name, str(path), "a readable file", str(error.strerror))
            raise DataError("The data cannot be used:", [defect]) from None
    digest.update(b"labelled" if case.label else b"unlabelled")
    return folder / plan.hash[:16] / digest.hexdigest()[:32]


@cache
def _file_digest(path: Path, size: int, changed_ns: int) -> bytes:  # noqa: ARG001 - the cache's key
    """Return the SHA-256 of a file; read once per process unless size or time change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _write(place: Path, prepared: Prepared, task: Task) -> None:
    """Write an entry beside its place, then rename it; whoever comes second is discarded."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
    except OSError as error:
        raise DiskError(f"{place}: cannot be written: {error.strerror}") from None
    try:
        _fill(temporary, prepared, task)
        temporary.rename(place)
    except OSError as error:
        if not place.exists():
            raise DiskError(f"{place}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, prepared: Prepared, task: Task) -> None:
    labels, index = prepared.labels, dict[int, Index]()
    write_atomically(folder / "image.b2nd", _compressed(prepared.image))
    if labels is not None:
        index = foreground_index(labels, task.foreground_labels)
        write_atomically(folder / "labels.b2nd", _compressed(labels))
    if index:
        rows = BytesIO()
        np.save(rows, np.concatenate([index[value] for value in sorted(index)]), allow_pickle=False)
        write_atomically(folder / "foreground.npy", rows.getvalue())
    channels, a, b, c = prepared.image.shape
    meta = Meta(
        geometry=prepared.geometry,
        channels=channels,
        shape=(a, b, c),
        labelled=labels is not None,
        foreground_voxels={value: len(rows) for value, rows in index.items()},
    )
    write_json(folder / "meta.json", meta)


def _compressed(array: NDArray[Any]) -> bytes:
    """Return a b2nd file; with more than one thread its bytes would vary from run to run."""
    leading = (1,) * (array.ndim - 3)
    chunks = leading + tuple(min(CHUNK_VOXELS, size) for size in array.shape[-3:])
    blocks = leading + tuple(min(BLOCK_VOXELS, size) for size in array.shape[-3:])
    shuffle = [blosc2.Filter.SHUFFLE]
    settings = blosc2.CParams(codec=CODEC, clevel=5, filters=shuffle, nthreads=1)
    packed = blosc2.asarray(array, chunks=chunks, blocks=blocks, cparams=settings)
    content: bytes = packed.to_cframe()
    return content


def _open(path: Path, *, in_memory: bool) -> Any:
    """Open an array for slicing; one thread, because the network needs the other cores."""
    array = blosc2.open(str(path), mode="r", dparams={"nthreads": 1})
    return array[...] if in_memory else array


def _nbytes(channels: int, shape: tuple[float, float, float]) -> int:
    return int(prod(shape) * (4 * channels + 1))  # float32 per channel, one byte of label


def _sweep(folder: Path) -> None:
    """Remove what killed processes left; younger folders may belong to one that is at work."""
    for left in folder.glob(".*"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
