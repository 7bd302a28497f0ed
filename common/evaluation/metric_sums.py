"""Sums of a metric over cases, in whole numbers: they add up over institutions, exactly.

A value is rounded to a whole number of units (of Dice 2**-20, of HD95 2**-8 mm), then it and its
square are summed. Sums of units give the mean and the standard deviation of any number of
institutions' cases; medians and quartiles do not follow from sums and are not known then.

Error bounds, against the same cases' unrounded values: the mean is off by half a unit at most, the
standard deviation by less than unit / sqrt(2). (It is a norm of the deviations, so it moves by no
more than the norm of the rounding errors: unit / 2 * sqrt(n / (n - 1)), largest for two cases.)
"""

import math
from collections.abc import Iterable
from typing import Annotated

from annotated_types import Ge

from common.codec import record
from common.errors import DataError

DICE_UNIT = 2.0**-20
HD95_UNIT_MM = 2.0**-8
MAX_UNITS = 2**20  # Dice 1, and HD95 4096 mm: longer than any scanner's field of view
MAX_CASES = 2**13  # of one institution: squares stay below 2**53, those of 1000 sites below 2**63


@record
class MetricSum:
    """One metric over any number of cases. May leave the site as far as its policy says."""

    total: Annotated[int, Ge(0)]
    """In units."""
    squares: Annotated[int, Ge(0)]
    """In squared units."""

    def is_possible(self, n_cases: int) -> bool:
        """Return whether so many whole numbers from 0 to `MAX_UNITS` can have these sums."""
        bounded = self.total <= self.squares <= MAX_UNITS * self.total
        even = (self.squares - self.total) % 2 == 0  # as n**2 - n is
        return bounded and even and self.total**2 <= n_cases * self.squares

    def spread(self, n_cases: int, unit: float) -> "MeanAndSd":
        """Return what the sums say of so many cases; the deviation of one case is 0."""
        scatter = n_cases * self.squares - self.total**2
        variance = scatter / (n_cases * (n_cases - 1)) if n_cases > 1 else 0.0
        return MeanAndSd(mean=unit * self.total / n_cases, sd=unit * math.sqrt(variance))


@record
class MeanAndSd:
    """Location and spread of one metric over cases."""

    mean: float
    sd: float
    """With n - 1 in the denominator."""


def metric_sum(values: Iterable[float], unit: float) -> MetricSum:
    """Return the sums of values.

    Args:
        values: from 0 to `MAX_UNITS` units.
        unit: to which they are rounded.

    Raises:
        DataError: for another value; it is not named.
    """
    counted = [round(value / unit) if math.isfinite(value) else -1 for value in values]
    if any(not 0 <= number <= MAX_UNITS for number in counted):
        raise DataError(
            f"sums of metrics: expected values from 0 to {MAX_UNITS * unit:g} in every case, found "
            "another"
        )
    return MetricSum(total=sum(counted), squares=sum(number**2 for number in counted))
