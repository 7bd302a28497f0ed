"""Means and medians of arrays with gaps, without numpy's warnings about empty slices."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def mean_over(values: Values, axis: int) -> Values:
    """Return the mean of what is known along an axis; NaN where nothing is."""
    known = ~np.isnan(values)
    n = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def median_of(values: Values) -> float | None:
    """Return the median of what is known; None if nothing is."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else None
