"""A site's cache of prepared cases: compressed arrays on disk, read patch by patch.

An entry lies at ``<folder>/<plan hash>/<content hash>/`` and holds ``image.b2nd``,
``labels.b2nd``, ``foreground.npy`` and ``meta.json``; it is written by `entry_files.py`, whole
or not at all, and a case's name is nowhere in it. All of it stays at the site. This is the only
file that knows blosc2.

Measured with `benchmarks/cache.py` on an idle core (patches of 128^3, four channels, in the page
cache), for a BraTS 2013 case and a noisier synthetic one: LZ4 keeps 0.18 and 0.45 of the size and
reads a patch in 14 and 16 ms; Zstandard keeps 0.15 and 0.40 and takes twice as long; LZ4HC keeps
0.18 and 0.44 and takes 0.85 of the time, but 5 times as long to write; uncompressed files take a
quarter of the time, and 2 to 6 times the disk and page cache (`keep_in_memory` does as well).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Final, NoReturn, TypeAlias

import blosc2
import numpy as np
from numpy.typing import NDArray

from client.caching.entry_record import Meta, read_meta, read_previous, unchanged
from client.preparation.preprocess import Index
from common.axes import Image, LabelMap, Shape
from common.errors import ConfigError, DataError

SCHEMA: Final = 2  # raised whenever preparation changes, so that older entries are not taken
CODEC: Final = blosc2.Codec.LZ4
LEVEL: Final = 9  # 2 % smaller and 5 % faster to read than 5, as fast to write
CUBES: Final = ((64, 64, 64), (16, 16, 16))  # chunk and block; blocks of 32^3 read 5 % slower
WHOLE: Final = 10**6  # all voxels of an axis
SLICES: Final = ((8, WHOLE, WHOLE), (1, WHOLE, WHOLE))  # a slice is read 10 times as fast
NPY_FAULTS: Final = (OSError, ValueError, EOFError, TypeError, KeyError, SyntaxError)  # by trying

Slices3: TypeAlias = tuple[slice, slice, slice]


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
        return prod(self.shape) * (4 * self.meta.channels + 1)  # float32, and a byte of label

    @property
    def disk_bytes(self) -> int:
        """Size of the entry's arrays on disk."""
        return sum(file.n_bytes for file in self.meta.files.values())

    def image(self, slices: Slices3) -> Image:
        """Return all channels of a region, axes (channel, network axes).

        Raises:
            DataError: when the file turns out to be damaged; it is then prepared again.
        """
        region: Image = self._region(self._image, (slice(None), *slices))
        return region

    def labels(self, slices: Slices3) -> LabelMap:
        """Return the labels of a region.

        Raises:
            DataError: when the case has no reference segmentation, and as `image` does.
        """
        if not self.meta.labelled:
            raise DataError(f"{self.folder}: expected a labelled case, found one without labels")
        region: LabelMap = self._region(self._labels, slices)
        return region

    @property
    def has_previous(self) -> bool:
        """Whether labels of a previous stage were added."""
        return read_previous(self.folder) is not None

    @property
    def previous_source(self) -> str | None:
        """Which model predicted the labels of the previous stage; None when there are none."""
        found = read_previous(self.folder)
        return None if found is None else found.source_hash

    def previous(self, slices: Slices3) -> LabelMap:
        """Return a region of the labels that the previous stage predicted.

        Raises:
            DataError: when none were added (`add_previous`), and as `image` does.
        """
        region: LabelMap = self._region(self._previous_labels, slices)
        return region

    @cached_property
    def foreground(self) -> Mapping[int, Index]:
        """Positions (n, 3) of voxels of each label value that occurs, along the network's axes."""
        counts = self.meta.foreground_voxels
        if not counts:
            return {}
        values = sorted(counts)
        try:
            index = np.load(self.folder / "foreground.npy", mmap_mode="r", allow_pickle=False)
            if index.shape != (sum(counts.values()), 3):
                raise ValueError("foreground.npy")
        except NPY_FAULTS as error:
            self._damaged(error)
        ends = np.cumsum([counts[value] for value in values])[:-1]
        return dict(zip(values, np.split(index, ends), strict=True))

    @cached_property
    def _image(self) -> Any:
        return self._open("image.b2nd", (self.meta.channels, *self.shape), np.float32)

    @cached_property
    def _labels(self) -> Any:
        return self._open("labels.b2nd", self.shape, np.uint8)

    @cached_property
    def _previous_labels(self) -> Any:
        found = read_previous(self.folder)
        if found is None:
            raise DataError(f"{self.folder}: expected labels of a previous stage, found none")
        return self._open(found.name, self.shape, np.uint8)

    def _open(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """Open an array for slicing; one thread, because the network needs the other cores."""
        try:
            array = blosc2.open(str(self.folder / name), mode="r", dparams={"nthreads": 1})
        except Exception as error:  # noqa: BLE001 - a damaged header makes anything of blosc2
            self._damaged(error)
        # a damaged header may also make something else of the file, which has neither
        found = getattr(array, "shape", None), getattr(array, "dtype", None)
        if found != (shape, dtype):
            self._damaged(ValueError(f"{name}: shape and type {found}"))
        return self._region(array, (...,)) if self.in_memory else array

    def _region(self, array: Any, slices: tuple[Any, ...]) -> Any:
        try:
            return array[slices]
        except RuntimeError as error:  # a chunk that cannot be decompressed
            self._damaged(error)

    def _damaged(self, error: Exception) -> NoReturn:
        """Give a damaged entry up, so that the next preparation makes it anew."""
        if unchanged(self.folder, self.meta):  # then it was something else
            raise error
        (self.folder / "meta.json").unlink(missing_ok=True)
        raise DataError(
            f"{self.folder}: expected a whole entry, found a damaged one; it is made anew when "
            "the data set is prepared the next time"
        ) from error


def open_entry(folder: Path) -> CacheEntry:
    """Return the entry that lies in `folder`, after a look at its record and its files' sizes.

    Raises:
        ConfigError: when there is none.
        DataError: when it is damaged.
    """
    return CacheEntry(folder, read_meta(folder))


def whole_entry(folder: Path, *, verify: bool) -> CacheEntry | None:
    """Return the entry in `folder`, or None when it is absent or damaged.

    Args:
        folder: of the entry.
        verify: whether to read its files whole and to compare their checksums.
    """
    try:
        entry = open_entry(folder)
    except (ConfigError, DataError):
        return None
    return None if verify and not unchanged(folder, entry.meta) else entry


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


def compressed(array: NDArray[Any], *, by_slice: bool) -> bytes:
    """Return the content of a b2nd file; the same array gives the same bytes.

    Args:
        array: its last three axes are the network's; those before are chunked one by one.
        by_slice: whether slices across the first network axis are read, or else cubes.
    """
    chunk, block = SLICES if by_slice else CUBES
    settings = blosc2.CParams(
        codec=CODEC,
        clevel=LEVEL,
        filters=[blosc2.Filter.SHUFFLE],
        nthreads=1,  # with more, the bytes would vary from run to run
    )
    packed = blosc2.asarray(
        array, chunks=_within(chunk, array), blocks=_within(block, array), cparams=settings
    )
    content: bytes = packed.to_cframe()
    return content


def _within(lengths: Shape, array: NDArray[Any]) -> tuple[int, ...]:
    leading = (1,) * (array.ndim - 3)
    return leading + tuple(map(min, lengths, array.shape[-3:]))
