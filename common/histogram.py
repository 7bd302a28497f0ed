"""Counts per whole number: they add up exactly, in any order, and give exact order statistics."""

from collections import Counter
from collections.abc import Mapping
from typing import Annotated

import numpy as np
from annotated_types import Gt
from pydantic import AfterValidator


def ascending(counts: dict[int, int]) -> dict[int, int]:
    """Return the counts ordered by value: the order of arrival would tell the order of cases."""
    return dict(sorted(counts.items()))


Positive = Annotated[int, Gt(0)]
Histogram = Annotated[dict[int, Positive], AfterValidator(ascending)]
SizeHistogram = Annotated[dict[Positive, Positive], AfterValidator(ascending)]


def added(a: Mapping[int, int], b: Mapping[int, int]) -> dict[int, int]:
    """Return the counts of both histograms together."""
    return ascending(Counter(a) + Counter(b))


def percentile(histogram: Mapping[int, int], percent: float) -> float:
    """Return a percentile of the counted values, equal to numpy's linear interpolation.

    Args:
        histogram: count per value, not empty.
        percent: in [0, 100]; 50 is the median.

    Source: Hyndman and Fan 1996, type 7; both branches of numpy's interpolation, to its last bit.
    """
    values = np.array(sorted(histogram), np.int64)
    ranks = np.cumsum([histogram[value] for value in values.tolist()])
    position = (int(ranks[-1]) - 1) * (percent / 100)
    below = int(position)
    low, high = (
        int(values[np.searchsorted(ranks, min(rank, ranks[-1] - 1), side="right")])
        for rank in (below, below + 1)
    )
    weight = position - below
    if weight < 0.5:
        return low + (high - low) * weight
    return high - (high - low) * (1 - weight)
