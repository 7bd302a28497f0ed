"""Counts per whole number: they add up exactly, in any order, and give exact order statistics.

Coarsening keeps the type and the total: a bin is released as one value that stands for all of it.
"""

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


def coarsened(histogram: Mapping[int, int], at_least: int) -> dict[int, int]:
    """Merge neighbouring values, from the smallest up, into bins that count at least so many.

    Each bin is released at its lower median, from which the sum of the distances to its members
    is smallest. From a count of 3 on, that is never a single smallest or largest value.

    Args:
        histogram: count per value.
        at_least: smallest count of a bin, at least 1.

    Returns:
        Counts of the same total; unchanged when each count is high enough already. A total below
        `at_least` gives one bin with that total.
    """
    bins: list[dict[int, int]] = []
    count = at_least
    for value in sorted(histogram):
        if count >= at_least:
            bins.append({})
            count = 0
        bins[-1][value] = histogram[value]
        count += histogram[value]
    if len(bins) > 1 and count < at_least:
        rest = bins.pop()
        bins[-1] |= rest
    return {_lower_median(members): sum(members.values()) for members in bins}


def largest_move(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Return how far the values of one histogram lie at most from those of the other.

    The n-th smallest value of one is compared with the n-th smallest of the other, for every n.
    No percentile moves further than this, and no percentile of a sum of histograms moves further
    than the largest move among them.

    Args:
        before: count per value.
        after: count per value, of the same total; 0 in all gives 0.
    """
    old, new = sorted(before), sorted(after)
    old_ends, new_ends = (
        np.cumsum([histogram[value] for value in values], dtype=np.int64)
        for histogram, values in ((before, old), (after, new))
    )
    # Between two neighbouring ends of either histogram nothing changes: one rank each is enough.
    ends = np.union1d(old_ends, new_ends)
    at_old = np.array(old, np.int64)[np.searchsorted(old_ends, ends)]
    at_new = np.array(new, np.int64)[np.searchsorted(new_ends, ends)]
    return int(np.abs(at_old - at_new).max(initial=0))


def _lower_median(members: Mapping[int, int]) -> int:
    half = (sum(members.values()) + 1) // 2
    ranks = np.cumsum([members[value] for value in sorted(members)])
    return sorted(members)[int(np.searchsorted(ranks, half))]
