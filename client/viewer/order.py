"""The order of the list: the cases in which most went wrong first."""

import math
from dataclasses import dataclass
from statistics import fmean

from client.viewer.listing import ListedCase, Listing
from common.evaluation.scores import UNBOUNDED


@dataclass(frozen=True)
class Row:
    """One line of the list."""

    number: int
    """Of the case; stands in addresses instead of its name."""
    name: str
    value: float | None
    """What the list is ordered by; None where there is no such value."""
    remarks: tuple[str, ...]
    """Why a case stands where it stands, in a few words."""


def worst_first(listing: Listing, metric: str, region: str | None) -> list[Row]:
    """Return the cases by one metric, worst first; of equal ones, by HD95, then by name.

    Args:
        listing: the cases.
        metric: for example dice, of which low is bad, or hd95, of which high is bad.
        region: one of the task's, or None for the mean over all of them.

    Returns:
        One row per case. Those without a value come last.
    """
    rows = []
    for number, one in enumerate(listing.cases):
        value = mean_value(one, metric, region)
        hd95 = mean_value(one, "hd95", region)
        key = (value is None, _badness(metric, value), -(hd95 or 0), one.case.name)
        row = Row(number, one.case.name, value, remarks_on(one, listing, region))
        rows.append((key, row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def mean_value(one: ListedCase, metric: str, region: str | None) -> float | None:
    """Return a metric of one region, or its mean over those that have a value."""
    regions = one.values.values() if region is None else [one.values.get(region, {})]
    known = [row[metric] for row in regions if metric in row and not math.isnan(row[metric])]
    return fmean(known) if known else None


def remarks_on(one: ListedCase, listing: Listing, region: str | None) -> tuple[str, ...]:
    """Return what to know of a case before its numbers are read."""
    remarks = []
    if one.case.label is None:
        remarks.append("no reference")
    if listing.with_predictions and one.prediction is None:
        remarks.append("no prediction")
    if one.faults:
        remarks.append("unusable labels")
    if empty := [name for name in one.empty if region in {None, name}]:
        remarks.append(f"reference without {', '.join(empty)}")
    return tuple(remarks)


def _badness(metric: str, value: float | None) -> float:
    """Return what sorts the worst value first."""
    if value is None:
        return 0.0
    return -value if metric in UNBOUNDED else value
