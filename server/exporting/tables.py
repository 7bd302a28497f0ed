"""A run's events and scores as tables: one per kind of event, one of all scores."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pandas as pd

from common.codec import encode
from common.evaluation.scores import COLUMNS, FURTHER_COLUMNS, METRICS, read_all_scores
from server.events import EVENT_TYPES, Event
from server.log_lines import Timed

SCORES = "scores"
DTYPES = {int: "Int64", float: "float64", str: "str", bool: "boolean"}
"""Columns with gaps keep their type: Int64 and boolean know a missing value."""


def events_by_kind(events: Sequence[Timed]) -> dict[str, list[Timed]]:
    """Return events by the name of their kind, in their order."""
    kinds: dict[str, list[Timed]] = defaultdict(list)
    for timed in events:
        kinds[type(timed.event).__name__].append(timed)
    return dict(kinds)


def table_of(kind: str, events: Sequence[Timed]) -> pd.DataFrame:
    """Return events of one kind as a table, one row for each, repeated rounds included.

    Args:
        kind: name of the event's class.
        events: all of that kind, at least one.

    Returns:
        Columns `time` (UTC), then the event's fields in their order. What a field holds by name
        has a column for each name (`dice.WT`, `spent.epsilon`); texts of a list are joined by
        "; ". A value that is absent is missing.
    """
    rows = [dict(_row(event)) for _, event in events]
    columns = _columns(kind, rows)
    table = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=columns[name]) for name in columns}
    )
    table.insert(0, "time", pd.to_datetime([time for time, _ in events], utc=True))
    return table


def score_table(paths: Sequence[Path]) -> pd.DataFrame:
    """Return score files ``<method>/<site>.csv`` as one long table; a missing value stays missing.

    Returns:
        Columns method, site, case, region, the metrics, and further metrics that a file has.

    Raises:
        ConfigError: when a file is malformed.
    """
    rows = [row for path in paths for row in _score_rows(path)]
    found = [name for name in FURTHER_COLUMNS if any(name in row for row in rows)]
    table = pd.DataFrame(rows, columns=["method", "site", *COLUMNS, *found])
    return table.astype(dict.fromkeys([*METRICS, *found], "float64"))


def _row(event: Event) -> Iterator[tuple[str, Any]]:
    """Yield the values of an event by column."""
    for name, value in encode(event).items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        elif isinstance(value, list):
            yield name, "; ".join(map(str, value))
        else:
            yield name, value


def _columns(kind: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the type of every column; a field with names has those that occur."""
    hints = get_type_hints(EVENT_TYPES[kind])
    found = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, str] = {}
    for field in fields(EVENT_TYPES[kind]):
        inner = [name for name in found if name.startswith(f"{field.name}.")]
        for name in inner:
            value = next(row[name] for row in rows if name in row)
            columns[name] = DTYPES[type(value)]
        if not inner and (dtype := _dtype(hints[field.name])):
            columns[field.name] = dtype
    return columns


def _dtype(annotation: Any) -> str | None:
    """Return the type of a field's column; None for a field with names, of which none occurs."""
    for candidate in (annotation, *get_args(annotation)):
        if candidate in DTYPES:
            return DTYPES[candidate]
    is_list = getattr(annotation, "__origin__", None) is tuple
    return "str" if is_list else None


def _score_rows(path: Path) -> Iterator[dict[str, Any]]:
    scores, further = read_all_scores(path)
    for case, regions in scores.items():
        for region, score in regions.items():
            metrics = {metric: getattr(score, metric) for metric in METRICS}
            where = {"method": path.parent.name, "site": path.stem, "case": case, "region": region}
            others = {str(name): value for name, value in further[case][region].items()}
            yield where | metrics | others
