"""Searching a log: newest first, page by page, whatever the lines are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.dashboard import log_search
from server.dashboard.log_page import LogPage, LogQuery
from server.dashboard.log_search import kinds_of, search
from server.dashboard.run_data import UNREADABLE, RunData, follow
from simulation.invented_events import InventedRun
from simulation.invented_runs import CORRUPT_LINES, older_lines, write_invented

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Log:
    def __init__(self, folder: Path, *spoilt: bytes) -> None:
        run = InventedRun("r", failing="site-02")
        self.path = write_invented(folder, run, NOON, spoilt=spoilt).events
        self.data = follow(self.path, RunData())

    def search(self, **query: object) -> LogPage:
        return search(self.path, self.data.index, LogQuery(**query), n_rounds=10)  # type: ignore[arg-type]

    def pages(self, **query: object) -> Iterator[LogPage]:
        before: int | None = None
        while True:
            page = self.search(before=before, **query)
            yield page
            if page.next_before is None:
                return
            before = page.next_before


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_the_newest_lines_come_first_in_words(log: Log) -> None:
    page = log.search(n_lines=2)
    assert [line.text for line in page.lines] == [
        "run finished in 6440 s, peak memory 3.0 GiB",
        "fedprox: 24 cases of held-out-1 scored",
    ]
    first = page.lines[0]
    assert (first.kind, first.time, first.readable) == ("RunFinished", NOON, True)
    assert first.number == page.n_total == log.path.read_bytes().count(b"\n")
    assert page.complete


def test_pages_together_are_the_whole_log(log: Log) -> None:
    numbers = [line.number for page in log.pages(n_lines=7) for line in page.lines]
    assert numbers == list(range(len(log.data.index), 0, -1))


@pytest.mark.parametrize(
    ("query", "n_lines"),
    [
        ({"kind": "SiteFailed"}, 6),
        ({"kind": "SiteTrained", "site": "site-01"}, 20),
        ({"kind": "RoundFinished", "method": "fedprox"}, 10),
        ({"text": "round 7/10: SITE-01"}, 2),
        ({"text": '"upload_bytes"'}, 74),
        ({"text": "failed", "method": "fedavg"}, 3),
        ({"kind": "NoSuchKind"}, 0),
        ({"site": "<script>"}, 0),
        ({"text": "\ud800"}, 0),
    ],
)
def test_filters_are_all_fulfilled(log: Log, query: dict[str, str], n_lines: int) -> None:
    found = [line for page in log.pages(n_lines=50, **query) for line in page.lines]
    assert len(found) == n_lines
    assert all(not query.get(name) or getattr(line, name) == query[name] for line in found
               for name in ("kind", "site", "method"))  # fmt: skip


def test_lines_that_cannot_be_read_are_shown_and_found(tmp_path: Path) -> None:
    log = Log(tmp_path, *CORRUPT_LINES, *older_lines(NOON))
    page = log.search(kind=UNREADABLE)
    assert [line.number for line in page.lines] == [8, 7, 6, 5, 4, 3]
    assert not any(line.readable for line in page.lines)
    assert page.lines[1].text.startswith(
        "cannot be read: an event that this version does not know: 'RoundEnded': {"
    )
    assert (page.lines[1].kind, page.lines[1].round) == ("RoundEnded", 1)
    assert [line.number for line in log.search(text="city").lines] == [8]
    assert UNREADABLE in kinds_of(log.data.index)
    assert "SiteFailed" in kinds_of(log.data.index)


def test_lines_that_are_too_long_are_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = b'{"time": "2026-03-01T12:00:00+00:00", "event": "Note", "text": "' + b"x" * 2**21
    log = Log(tmp_path, long)
    (line,) = log.search(kind=UNREADABLE).lines
    assert line.text.startswith(f"cannot be read: the line has {len(long)} bytes: no event has")
    assert len(line.text) < 500


def test_a_search_ends_in_time_and_goes_on_from_there(log: Log) -> None:
    ticks = iter(range(10**6))
    query = LogQuery(text="run r started")
    page = search(log.path, log.data.index, query, n_rounds=10, clock=lambda: next(ticks) * 0.01)
    assert not page.complete
    assert page.lines == ()
    assert page.next_before == len(log.data.index) - 49  # half a second at 0.01 s per line
    (last,) = [line for page in log.pages(text="run r started") for line in page.lines]
    assert last.number == 1


def test_a_page_and_a_text_are_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_search, "MOST_LINES", 5)
    assert len(log.search(n_lines=10**9).lines) == 5
    assert len(log.search(n_lines=-3).lines) == 1
    assert log.search(text="x" * 10**6).lines == ()


def test_blocks_and_single_lines_are_read_alike(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    together = [line for page in log.pages(site="site-03") for line in page.lines]
    monkeypatch.setattr(log_search, "GAP_BYTES", 0)
    monkeypatch.setattr(log_search, "BLOCK_BYTES", 600)
    assert [line for page in log.pages(site="site-03") for line in page.lines] == together
    monkeypatch.setattr(log_search, "GAP_BYTES", 10**9)
    assert [line for page in log.pages(site="site-03") for line in page.lines] == together
