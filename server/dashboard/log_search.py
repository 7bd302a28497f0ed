"""Searching a run's log, newest first, straight from the file by where its lines begin.

Nothing of the log is kept in memory but an index. A query looks at so many lines, for so long; it
says how to go on from there.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from server.dashboard.line_index import LineIndex, matching
from server.dashboard.log_page import LogLine, LogPage, LogQuery
from server.dashboard.run_data import UNREADABLE
from server.event_lines import line_of
from server.log_following import HEAD_BYTES, MOST_LINE_BYTES, Line, opened, read_bytes
from server.log_lines import Timed, UnreadableLine, read_line

MOST_LINES = 500  # of a page
MOST_TEXT = 200  # characters of what is searched for
MOST_CHARACTERS = 2000  # of a line in words
MOST_SECONDS = 0.5  # of a search, so that a page stays alive
GAP_BYTES = 2**16  # between wanted lines: reading over it is cheaper than another read
BLOCK_BYTES = 2**20


def search(
    path: Path,
    index: LineIndex,
    query: LogQuery,
    *,
    n_rounds: int,
    clock: Callable[[], float] = time.monotonic,
) -> LogPage:
    """Return the newest lines that a query asks for.

    Args:
        path: of the log.
        index: of the lines that were read of it.
        query: what is looked for; more than `MOST_LINES` lines or `MOST_TEXT` characters are not.
        n_rounds: of each method, for the words.
        clock: that the search is timed by.

    Raises:
        OSError: when the log cannot be read.
    """
    places = _candidates(index, query)
    wanted, text = min(max(1, query.n_lines), MOST_LINES), query.text[:MOST_TEXT].casefold()
    end, found, last = clock() + MOST_SECONDS, list[LogLine](), None
    for line in _lines(path, index, places):
        if len(found) == wanted or clock() > end:
            return LogPage(tuple(found), last, len(found) == wanted, len(index))
        last = line.number
        shown = _in_words(line, n_rounds)
        if not text or _holds(shown, line.content, text):
            found.append(shown)
    return LogPage(tuple(found), None, complete=True, n_total=len(index))


def kinds_of(index: LineIndex) -> tuple[str, ...]:
    """Return the kinds of lines that a log has, by name, for a choice."""
    names = list(index.names)
    return tuple(sorted(names[number] for number in np.unique(np.array(index.kinds, np.int64))))


def _candidates(index: LineIndex, query: LogQuery) -> NDArray[np.int64]:
    """Return the places of lines that may fit, the newest first."""
    places = matching(index, kind=query.kind, method=query.method, site=query.site)
    if query.before is not None:
        places = places[np.array(index.numbers, np.int64)[places] < query.before]
    return places[::-1]


def _lines(path: Path, index: LineIndex, places: NDArray[np.int64]) -> Iterator[Line]:
    """Yield lines from the file, several with one reading where they lie close together."""
    begins, ends = np.array(index.begins, np.int64)[places], np.array(index.ends, np.int64)[places]
    is_near = np.zeros(len(places), bool)  # the next one, which lies before it in the file
    is_near[:-1] = begins[:-1] - ends[1:] < GAP_BYTES
    numbers = np.array(index.numbers, np.int64)[places]
    with opened(path) as file:
        start, block = 0, b""
        for number, begin, end, is_close in zip(
            *(column.tolist() for column in (numbers, begins, ends, is_near)), strict=True
        ):
            if end - begin > MOST_LINE_BYTES:
                yield Line(number, begin, _at(file, begin, HEAD_BYTES), end)
                continue
            if not start <= begin <= end <= start + len(block):
                start = min(begin, max(0, end - BLOCK_BYTES)) if is_close else begin
                block = _at(file, start, end - start)
            content = block[begin - start : end - start]
            yield Line(number, begin, content, begin + len(content))


def _at(file: IO[bytes], begin: int, size: int) -> bytes:
    file.seek(begin)
    return read_bytes(file, size)


def _in_words(line: Line, n_rounds: int) -> LogLine:
    found = read_line(line)
    if isinstance(found, UnreadableLine):
        words = f"cannot be read: {found.reason}: {found.text}"
        return LogLine(
            line.number, found.time, found.kind or UNREADABLE, found.method, found.round,
            found.site, words, readable=False,
        )  # fmt: skip
    return _of_event(line, found, n_rounds)


def _of_event(line: Line, found: Timed, n_rounds: int) -> LogLine:
    event = found.event
    return LogLine(
        number=line.number,
        time=found.time,
        kind=type(event).__name__,
        method=getattr(event, "method", ""),
        round=getattr(event, "round", None),
        site=getattr(event, "site", ""),
        text=(line_of(event, n_rounds) or type(event).__name__)[:MOST_CHARACTERS],
        readable=True,
    )


def _holds(shown: LogLine, content: bytes, text: str) -> bool:
    """Return whether a line, or its words, hold a text, whatever the case."""
    return text in shown.text.casefold() or text in content.decode(errors="replace").casefold()
