"""Arrays that lie in memory while they fit into a budget, and in a file of no name beyond it.

The file has no entry in any folder, so that it vanishes with the process, however that ends. Its
pages are given back to the system as soon as a slab is done; they are never missing, only read
again.
"""

import mmap
import os
import sys
import tempfile
import weakref
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from common.errors import DiskError

DEFAULT_SHARE: Final = 4  # the images themselves and the network need memory as well


class Workspace:
    """A budget of memory, and the arrays that are allocated from it, as long as they are used."""

    def __init__(self, max_bytes: int | None = None, folder: Path | None = None) -> None:
        """Take the budget, and where files may lie; a quarter of the memory, and the system's."""
        self._left_bytes = memory_bytes() // DEFAULT_SHARE if max_bytes is None else max_bytes
        self._folder = folder
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array of zeros, which is in memory if it fits into what is left.

        Raises:
            DiskError: when the disk cannot hold it.
        """
        n_bytes = prod(shape) * np.dtype(dtype).itemsize
        if n_bytes <= self._left_bytes:
            array = np.zeros(shape, dtype)
            self._left_bytes -= n_bytes
            weakref.finalize(array, self._give_back, n_bytes)
            return array
        return np.frombuffer(self._mapped(n_bytes), dtype).reshape(shape)

    def settle(self) -> None:
        """Let the system have the memory of arrays on disk; their values stay."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def _give_back(self, n_bytes: int) -> None:
        self._left_bytes += n_bytes

    def _mapped(self, n_bytes: int) -> mmap.mmap:
        """Map a file of no name, with its place on the disk reserved: writing cannot fail later."""
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                _reserve(file.fileno(), n_bytes)
                mapped = mmap.mmap(file.fileno(), n_bytes)
        except OSError as error:
            where = self._folder or Path(tempfile.gettempdir())
            raise DiskError(
                f"{where}: expected {n_bytes / 1e9:.1f} GB of disk for intermediate results, "
                f"found: {error.strerror}; or allow more memory (--max-memory-gb)"
            ) from None
        self._maps.add(mapped)
        return mapped


def _reserve(file: int, n_bytes: int) -> None:
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, n_bytes)
    else:
        os.truncate(file, n_bytes)


def memory_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
