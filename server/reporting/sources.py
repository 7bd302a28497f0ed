"""Where every number of a report comes from: written beside the number, taken out of the page.

A number goes into a sentence or a table together with its source, between three characters that
Unicode keeps for private use. Sentences stay plain strings that can be joined and escaped; at the
end `without_sources` gives the page, and `numbers_of` the list of its numbers in their order,
which lies beside the report as `report-numbers.csv`. A source reads

    FILE: KEY                              config.toml: federation.rounds
    FILE: HOW of KEY where FIELD=VALUE     events.jsonl: sum of SiteTrained.n_steps where site=a

FILE is relative to the run directory; "program" is what stands in this package's own code. KEY is
a path within the file (a column of a CSV, event and field of the log). HOW is a sum, a mean and so
on of all values found. Of events that a resumed run repeated, the last one counts.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OPEN, BETWEEN, CLOSE = "\ue000", "\ue001", "\ue002"
_SOURCED = re.compile(f"{OPEN}([^{BETWEEN}{CLOSE}]*){BETWEEN}([^{OPEN}{CLOSE}]*){CLOSE}")
_ESCAPED = re.compile(r"\\(.)")  # as Markdown escapes


@dataclass(frozen=True)
class Sourced:
    """A number as it is printed, with its unit, and where it comes from."""

    text: str
    source: str


def sourced(text: object, source: str) -> str:
    """Return a number with its source, ready to stand in a sentence."""
    return f"{OPEN}{text}{BETWEEN}{source}{CLOSE}"


def where(source: str, **fields: object) -> str:
    """Return a source narrowed to some lines: those whose fields have these values."""
    found = ", ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    return f"{source} where {found}" if found else source


def numbers_of(page: str) -> tuple[Sourced, ...]:
    """Return the sourced numbers of a page of Markdown, in their order."""
    return tuple(
        Sourced(_ESCAPED.sub(r"\1", text), _ESCAPED.sub(r"\1", source))
        for text, source in _SOURCED.findall(page)
    )


def without_sources(page: str) -> str:
    """Return a page as people read it."""
    return re.sub(f"[{OPEN}{BETWEEN}{CLOSE}]", "", _SOURCED.sub(r"\1", page))


def numbers_csv(numbers: Iterable[Sourced]) -> str:
    """Return the list of numbers as a CSV: number, source."""
    text = io.StringIO()
    rows: Sequence[Sequence[str]] = [(number.text, number.source) for number in numbers]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("number", "source"), *rows])
    return text.getvalue()
