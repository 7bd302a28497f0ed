"""A line as an event: as the strict reader has it, and in words where that refuses it."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from server.event_log import event_of, read_events
from server.events import Event, Note
from server.log_following import Line
from server.log_lines import Timed, UnreadableLine, read_line
from simulation.invented_events import InventedRun, events_of
from simulation.invented_runs import log_line, older_lines

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
START = b'{"time": "2026-03-01T12:00:00.000+00:00", "event": '


def read(content: bytes) -> Timed | UnreadableLine:
    return read_line(Line(7, 100, content, 100 + len(content)))


def unreadable(content: bytes) -> UnreadableLine:
    found = read(content)
    assert isinstance(found, UnreadableLine)
    return found


def strictly(path: Path, content: bytes) -> tuple[datetime, Event] | None:
    path.write_bytes(content + b"\n")
    try:
        return next(read_events(path), None)
    except ConfigError:
        return None


@pytest.mark.parametrize(
    "run",
    [
        InventedRun("plain", n_rounds=2, failing="site-01"),
        InventedRun("masked", n_rounds=2, masked=True),
        InventedRun("private", n_rounds=2, private=True),
        InventedRun("approval", ending="approval"),
    ],
    ids=lambda run: run.name,
)
def test_every_line_of_a_run_is_its_event(run: InventedRun) -> None:
    for _, event in events_of(run):
        assert read(log_line(NOON, event)) == (NOON, event)


BROKEN = st.sampled_from(
    [
        *(b"", b"{", b"}", b'"', b",", b" ", b"\xff", b"\x00", b"null", b"NaN", b"1e999", b"true"),
        *(b"[]", b'"round": -1', b'"site": "\\ud800"', b'"n_cases": 12.5', b'"loss": "0.5"'),
        *(b"\\u0041", b"9" * 30, b"-0.0", b"\t", b"\\u0000"),
    ]
)


EVENTS = [event for _, event in events_of(InventedRun("r", n_sites=3, n_rounds=1))]


@st.composite
def broken_lines(draw: st.DrawFn) -> bytes:
    """Lines of events, damaged in no, one or two places."""
    content = log_line(NOON, draw(st.sampled_from(EVENTS)))
    for _ in range(draw(st.integers(0, 2))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(len(content), begin + 12)))
        content = content[:begin] + draw(BROKEN) + content[end:]
    return content


def told_by(events: Iterator[tuple[datetime, Event]]) -> list[str]:
    """Return what a reader yields, times with their zones, up to its error."""
    told = []
    try:
        for time, event in events:
            told.append(f"{time.isoformat()} {event}")
    except ConfigError as error:
        told.append(str(error))
    return told


def by_the_codec(path: Path) -> Iterator[tuple[datetime, Event]]:
    """Read a log strictly, every line by way of plain data."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        with suppress(json.JSONDecodeError):
            yield event_of(json.loads(line), f"{path}:{number}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(contents=st.lists(broken_lines(), min_size=1, max_size=3))
def test_strict_reading_gives_the_events_and_errors_of_the_codec(
    tmp_path: Path, contents: list[bytes]
) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"\n".join(contents))
    assert told_by(read_events(path)) == told_by(by_the_codec(path))


@pytest.mark.parametrize("time", ["2026-03-01T12:00:00", "1001-03-01T12:00:00+02:00"])
def test_strict_reading_leaves_a_time_as_it_stands(tmp_path: Path, time: str) -> None:
    path = tmp_path / "e"
    path.write_text(f'{{"time": "{time}", "event": "Note", "text": "a", "text": "b"}}\n')
    ((found, event),) = read_events(path)
    assert (found.isoformat(), event) == (time, Note(text="b"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_a_line_is_read_if_and_only_if_the_strict_reader_reads_it(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = data.draw(broken_lines())
    found, expected = read(content), strictly(tmp_path / "e", content)
    if isinstance(found, Timed):
        assert expected == (found.time, found.event)
    else:
        assert expected is None or not 2000 < expected[0].year < 2200


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (START + b'"Note"', "expected one JSON object, found damaged text"),
        (b"\0\0\0", "expected one JSON object, found damaged text"),
        (b"[" * 100_000, "expected one JSON object, found damaged text"),
        (
            b'{"time": "2026-03-01\x0012:00:00+00:00", "event": "Note", "text": "x"}',
            "expected one JSON object, found damaged text",
        ),
        (b"5", "expected a JSON object, found another value"),
        (
            b'{"event": "Note", "text": "x"}',
            "time: expected a date and time, found none that is one",
        ),
        (
            START + b'"FromTheFuture", "round": 3}',
            "an event that this version does not know: 'FromTheFuture'",
        ),
        (
            START + b'"Note", "txt": "x"}',
            "Note: text: missing; Note: txt: unknown key; did you mean 'text'?",
        ),
        (START + b'"Note", "text": NaN}', "Note: text: expected a valid string, found nan"),
    ],
)
def test_what_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    found = unreadable(content)
    assert found.reason == reason
    assert (found.number, found.begin, found.end) == (7, 100, 100 + len(content))


def test_a_line_that_is_too_long_says_so() -> None:
    found = read_line(Line(1, 0, b"x" * 10, 2_000_000))
    assert isinstance(found, UnreadableLine)
    assert found.reason == "the line has 2000000 bytes: no event has"


def test_an_older_line_tells_what_it_has_in_common() -> None:
    trained, ended, joined = (unreadable(line) for line in older_lines(NOON))
    assert (trained.kind, trained.method, trained.round, trained.site) == (
        "SiteTrained",
        "fedavg",
        1,
        "site-01",
    )
    assert trained.time == NOON
    assert "n_cases: missing" in trained.reason
    assert ended.kind == "RoundEnded"
    assert ended.reason == "an event that this version does not know: 'RoundEnded'"
    assert joined.reason.startswith("SiteJoined: city: unknown key")


def test_what_is_shown_of_a_line_is_short_and_printable() -> None:
    found = unreadable(b"\x1b[31m" + json.dumps("y" * 1000).encode() + b"\x07\xff")
    assert len(found.text) == 303
    assert found.text.isprintable()


def test_bytes_that_are_no_text_stand_replaced_in_a_note() -> None:
    found = read(START + b'"Note", "text": "caf\xe9"}')
    assert isinstance(found, Timed)
    assert getattr(found.event, "text", "") == "caf\N{REPLACEMENT CHARACTER}"


def test_a_time_without_a_zone_is_utc() -> None:
    found = read(b'{"time": "2026-03-01T12:00:00", "event": "Note", "text": "x"}')
    assert isinstance(found, Timed)
    assert found.time == NOON


@pytest.mark.parametrize(
    "time",
    [
        b"0001-03-01T12:00:00+00:00",
        b"9999-03-01T12:00:00+00:00",
        b"0001-01-01T00:00:00+02:00",  # in UTC before the first year
    ],
)
def test_an_absurd_time_is_none(time: bytes) -> None:
    found = unreadable(b'{"time": "' + time + b'", "event": "Note", "text": "x"}')
    assert found.time is None
