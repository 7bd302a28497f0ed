"""A log is read while it grows; what cannot be read costs one line and no more."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import ConfigError
from server import log_following
from server.event_log import EventLog
from server.events import Note, RoundFinished, SiteJoined
from server.exporting.following import batches
from server.exporting.reading import readable


def test_only_what_is_new_is_returned(tmp_path: Path, lines: SimpleNamespace) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(lines.text_of(lines.started))
    first, offset = readable(path, 0)
    assert [type(event).__name__ for _, event in first] == ["RunStarted"]
    assert readable(path, offset) == ([], offset)
    with path.open("a") as file:
        file.write(lines.text_of(lines.finished(5, 1)))
    (found,), end = readable(path, offset)
    assert found.event == RoundFinished(method="fedavg", round=1, n_sites=2, seconds=3.5)
    assert found.time.isoformat() == "2026-01-01T00:00:05.500000+00:00"
    assert end == path.stat().st_size


def test_a_line_that_is_being_written_waits_for_its_end(
    tmp_path: Path, lines: SimpleNamespace
) -> None:
    path = tmp_path / "events.jsonl"
    text = lines.text_of(lines.finished(5, 1))
    path.write_text(text[:40])
    assert readable(path, 0) == ([], 0)
    path.write_text(text[:-1])  # whole but for its end
    (found,), offset = readable(path, 0)
    assert isinstance(found.event, RoundFinished)
    path.write_text(text)
    assert readable(path, offset) == ([], len(text))


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        ('{"time": "2026-01-01T00:00:01+00:00", "event": "Fro', "found damaged text"),
        ("\x00\x00\x00", "found damaged text"),
        ("5", "expected a JSON object, found another value"),
        ('{"event": "Note", "text": "x"}', "time: expected a date and time"),
        (
            '{"time": "2026-01-01T00:00:01+00:00", "event": "FromTheFuture", "x": 1}',
            "an event that this version does not know: 'FromTheFuture'",
        ),
        (
            '{"time": "2026-01-01T00:00:01+00:00", "event": "Note", "txt": "x"}',
            "txt: unknown key; did you mean 'text'?",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_told_once_and_the_rest_goes_on(
    tmp_path: Path,
    lines: SimpleNamespace,
    capsys: pytest.CaptureFixture[str],
    damaged: str,
    words: str,
) -> None:
    path = tmp_path / "events.jsonl"
    begin = lines.text_of(lines.started)
    path.write_text(begin + damaged + "\n" + lines.text_of(lines.finished(5, 1)))
    found, _ = readable(path, 0)
    assert [type(event).__name__ for _, event in found] == ["RunStarted", "RoundFinished"]
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"left out: {path}: byte {len(begin)}: ")
    assert words in told


def test_a_whole_line_of_an_unknown_event_is_told_although_it_lacks_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    line = '{"time": "2026-01-01T00:00:01+00:00", "event": "FromTheFuture"}'
    path.write_text(line)
    assert readable(path, 0) == ([], len(line))
    path.write_text(line + "\n\n")
    assert readable(path, len(line)) == ([], len(line) + 2)
    assert capsys.readouterr().err == (
        f"left out: {path}: byte 0: an event that this version does not know: 'FromTheFuture'\n"
    )


def test_a_log_that_is_replaced_while_it_is_read_is_another_run(
    tmp_path: Path, lines: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(lines.text_of(lines.started) + "{}\n")
    monkeypatch.setattr(log_following, "PIECE_BYTES", path.stat().st_size)
    # whoever says what was left out finds another log there
    monkeypatch.setattr(sys.stderr, "write", lambda _: path.write_text("{}\n" * 200))
    with pytest.raises(ConfigError, match="another run began in this folder"):
        readable(path, 0)


def test_an_event_after_a_crash_in_the_middle_of_a_line_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    EventLog(path).append(Note(text="before"))
    path.write_bytes(path.read_bytes()[:-5])
    found, offset = readable(path, 0)
    assert found == []
    EventLog(path).append(SiteJoined(site="a", role="training"))
    (after,), _ = readable(path, offset)
    assert after.event == SiteJoined(site="a", role="training")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_log_that_shrank_is_another_run(tmp_path: Path, lines: SimpleNamespace) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(lines.text_of(lines.started))
    with pytest.raises(ConfigError, match="another run began in this folder"):
        readable(path, 10_000)


def test_an_unfinished_last_line_is_told_at_the_end(
    tmp_path: Path, lines: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    path, begin = tmp_path / "events.jsonl", lines.text_of(lines.started)
    path.write_text(begin + '{"time": "2026')
    assert [len(batch) for batch in batches(path, follow=False)] == [1]
    expected = f"left out: {path}: byte {len(begin)}: an unfinished last line\n"
    assert capsys.readouterr().err == expected


def test_following_ends_when_the_run_is_finished_and_not_when_it_was_resumed(
    tmp_path: Path, lines: SimpleNamespace
) -> None:
    path = tmp_path / "events.jsonl"
    end = lines.at(20, "RunFinished", seconds=1.0, peak_memory_bytes=1)
    path.write_text(lines.text_of(lines.started, end, {**lines.started, "resumed": True}))
    following = batches(path, follow=True)
    assert len(next(following)) == 3
    with path.open("a") as file:
        file.write(json.dumps(end) + "\n")
    assert len(next(following)) == 1
    assert next(following, None) is None


@pytest.mark.parametrize("follow", [False, True])
def test_a_folder_that_is_not_there_is_no_run(tmp_path: Path, follow: bool) -> None:
    with pytest.raises(ConfigError, match=r"absent: expected a run directory, found no events"):
        next(batches(tmp_path / "absent" / "events.jsonl", follow=follow))
