"""Where every line of a log begins, and its kind, site and method: 30 bytes per line."""

from array import array
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.errors import MessageError

MOST_NAMES = 60_000  # an index has two bytes
MOST_LINES = 5_000_000  # 150 MB of index


@dataclass
class LineIndex:
    """Columns of equal length; names are numbered in the order in which they came, "" is 0."""

    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    """Of the lines in the file, from 1; empty ones are not here."""
    begins: "array[int]" = field(default_factory=lambda: array("q"))
    ends: "array[int]" = field(default_factory=lambda: array("q"))
    kinds: "array[int]" = field(default_factory=lambda: array("H"))
    methods: "array[int]" = field(default_factory=lambda: array("H"))
    sites: "array[int]" = field(default_factory=lambda: array("H"))
    names: dict[str, int] = field(default_factory=lambda: {"": 0})
    """Of kinds, methods and sites alike."""

    def __len__(self) -> int:
        """Return how many lines there are."""
        return len(self.begins)


def add_line(
    index: LineIndex, number: int, begin: int, end: int, *, kind: str, method: str, site: str
) -> None:
    """Add the next line.

    Raises:
        MessageError: for a log with more lines than an index can hold.
    """
    if len(index) >= MOST_LINES:
        raise MessageError(f"expected a log of at most {MOST_LINES} lines")
    index.numbers.append(number)
    index.begins.append(begin)
    index.ends.append(end)
    names = index.names
    index.kinds.append(names[kind] if kind in names else _new_number(names, kind))
    index.methods.append(names[method] if method in names else _new_number(names, method))
    index.sites.append(names[site] if site in names else _new_number(names, site))


def matching(index: LineIndex, *, kind: str, method: str, site: str) -> NDArray[np.int64]:
    """Return the places of the lines that have what is asked for; "" is any."""
    fits = np.ones(len(index), bool)
    for column, name in ((index.kinds, kind), (index.methods, method), (index.sites, site)):
        if name:
            number = index.names.get(name)
            fits &= np.array(column) == number if number is not None else False
    return np.flatnonzero(fits)


def n_bytes(index: LineIndex) -> int:
    """Return how much memory an index takes."""
    return 30 * len(index)


def _new_number(names: dict[str, int], name: str) -> int:
    """Number a name; one too many gets none, and is not found by name."""
    if len(names) >= MOST_NAMES:
        return 0
    return names.setdefault(name, len(names))
