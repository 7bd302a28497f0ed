"""The values of a label map: whole numbers, and those that stand for another label."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from common.axes import LabelMap

INTEGER_TOLERANCE: Final = 1e-4  # what a stored slope and intercept add to a whole number


def renamed(labels: LabelMap, mapping: Mapping[int, int]) -> LabelMap:
    """Return labels with some values renamed; `labels` itself where there is nothing to rename."""
    table = np.arange(256, dtype=np.int64)
    for found, meant in mapping.items():
        if 0 <= found <= 255:
            table[found] = meant
    mapped: LabelMap = table.astype(np.uint8)[labels] if mapping else labels
    return mapped


def whole(stored: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the whole numbers that stored values stand for, and how many stand for none."""
    if stored.dtype.kind != "f":
        return stored.astype(np.int64), 0
    values: NDArray[Any] = np.rint(stored)
    with np.errstate(invalid="ignore"):  # infinity minus infinity; counted as broken
        n_broken = np.count_nonzero(~(np.abs(stored - values) <= INTEGER_TOLERANCE))
    return values, int(n_broken)
