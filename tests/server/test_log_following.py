"""A log that grows while it is read: no line is lost, none is told twice, nothing fills memory."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import log_following
from server.log_following import Line, Position, next_piece, pieces, waiting_line

LINE = st.binary(max_size=40).map(lambda content: content.replace(b"\n", b" "))


def read_on(path: Path, position: Position) -> tuple[list[Line], Position]:
    lines: list[Line] = []
    for piece in pieces(path, position):
        if piece.is_restart:
            lines.clear()
        lines.extend(piece.lines)
        position = piece.position
    return lines, position


def test_lines_come_with_their_number_and_place(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"one\n\nthree\n")
    lines, _ = read_on(path, Position())
    assert lines == [Line(1, 0, b"one", 3), Line(2, 4, b"", 4), Line(3, 5, b"three", 10)]


def test_a_last_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"one\ntw")
    piece = next_piece(path, Position())
    assert [line.content for line in piece.lines] == [b"one"]
    assert piece.n_pending_bytes == 2
    assert waiting_line(path, piece) == Line(2, 4, b"tw", 6)
    with path.open("ab") as file:
        file.write(b"o\nthree")
    assert waiting_line(path, piece) == Line(2, 4, b"tw", 6)  # as it stood then
    lines, _ = read_on(path, piece.position)
    assert lines == [Line(2, 4, b"two", 7)]
    assert waiting_line(path, replace(piece, n_pending_bytes=0)) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(LINE, max_size=30), st.data())
def test_however_a_log_is_written_every_line_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: list[bytes], data: st.DataObject
) -> None:
    monkeypatch.setattr(log_following, "PIECE_BYTES", data.draw(st.integers(50, 90)))
    monkeypatch.setattr(log_following, "MOST_LINE_BYTES", 45)
    whole = b"".join(content + b"\n" for content in contents)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    path, position, told = tmp_path / "e", Position(), []
    for end in [*sorted(cuts), len(whole)]:
        path.write_bytes(whole[:end])
        lines, position = read_on(path, position)
        told += lines
    assert [line.content for line in told] == contents
    assert [line.number for line in told] == list(range(1, len(contents) + 1))
    assert [whole[line.begin : line.end] for line in told] == contents


@pytest.mark.parametrize(
    "after", [b"one\n", b"", b"new\nlines\nof another run\n", b"one\ntwo\nthr"]
)
def test_a_file_that_was_shortened_or_replaced_is_read_anew(tmp_path: Path, after: bytes) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"one\ntwo\nthree\n")
    _, position = read_on(path, Position())
    path.write_bytes(after)
    piece = next_piece(path, position)
    assert piece.is_restart
    whole = after.split(b"\n")[:-1]
    assert [line.content for line in piece.lines] == whole
    assert [line.number for line in piece.lines] == list(range(1, len(whole) + 1))


def test_a_copy_of_the_same_file_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "e"
    path.write_bytes(b"one\ntwo\n")
    _, position = read_on(path, Position())
    (tmp_path / "copy").write_bytes(b"one\ntwo\nthree\n")
    (tmp_path / "copy").replace(path)
    piece = next_piece(path, position)
    assert not piece.is_restart
    assert [line.content for line in piece.lines] == [b"three"]


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with path.open("wb") as file:
        file.write(b"one\n" + b"x" * 10)
        file.truncate(100 * 2**20)  # NUL bytes, as a crash of the file system leaves them
    position, most = Position(), 0
    for piece in pieces(path, position):
        most = max(most, sum(len(line.content) for line in piece.lines))
        position = piece.position
    assert most == 3
    assert position.n_lines == 1
    assert position.n_skipped == 100 * 2**20 - 4
    with path.open("ab") as file:
        file.write(b"\nlast\n")
    lines, _ = read_on(path, position)
    assert [(line.number, line.begin, line.end) for line in lines] == [
        (2, 4, 100 * 2**20),
        (3, 100 * 2**20 + 1, 100 * 2**20 + 5),
    ]
    assert lines[0].content == b"x" * 10 + b"\0" * 2038
    assert not lines[0].is_whole
    assert lines[1].is_whole


def test_lines_longer_than_a_piece_do_not_hide_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_following, "PIECE_BYTES", 20)
    monkeypatch.setattr(log_following, "MOST_LINE_BYTES", 10)
    monkeypatch.setattr(log_following, "HEAD_BYTES", 4)
    path = tmp_path / "e"
    path.write_bytes(b"a" * 15 + b"\n" + b"b" * 75 + b"\nshort\n" + b"c" * 33)
    lines, position = read_on(path, Position())
    assert [(line.content, line.end - line.begin) for line in lines] == [
        (b"aaaa", 15),
        (b"bbbb", 75),
        (b"short", 5),
    ]
    with path.open("ab") as file:
        file.write(b"c\nend\n")
    lines, _ = read_on(path, position)
    assert [(line.content, line.number) for line in lines] == [(b"cccc", 4), (b"end", 5)]
