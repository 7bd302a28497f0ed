"""The ledger after crashes, full disks and people who change it."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.egress.entry import RECOVERED, Entry, SentObject
from client.egress.ledger import Head, append, head_file, now
from client.egress.reading import read, verify
from client.egress.words import words
from common.codec import read_json
from common.errors import ConfigError, DiskError


def entry(round_: int = 1, **fields: object) -> Entry:
    sent = SentObject(id="a" * 64, kind="ConfigRecord", bytes=9, content={"x": "y" * round_})
    made = {"n": 1, "time": now(), "kind": "train", "run": "r", "objects": (sent,), "bytes": 9}
    return Entry(**{**made, "round": round_, **fields})  # type: ignore[arg-type]


def ledger_of(folder: Path, n: int) -> Path:
    path = folder / "egress.jsonl"
    for round_ in range(1, n + 1):
        append(path, entry(round_))
    return path


@pytest.fixture(scope="session")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Return a ledger of five lines and its head."""
    path = ledger_of(tmp_path_factory.mktemp("five"), 5)
    return path.read_bytes(), head_file(path).read_bytes()


def written(folder: Path, ledger: bytes, head: bytes) -> Path:
    path = folder / "egress.jsonl"
    path.write_bytes(ledger)
    head_file(path).write_bytes(head)
    return path


def test_lines_are_chained_from_nothing_and_end_where_the_head_says(tmp_path: Path):
    path = ledger_of(tmp_path, 3)
    first, second, third = [json.loads(line) for line in path.read_text().splitlines()]
    assert first["previous"] == "0" * 64
    assert (second["previous"], third["previous"]) == (first["hash"], second["hash"])
    head = read_json(Head, head_file(path))
    assert (head.count, head.hash, head.bytes) == (3, third["hash"], path.stat().st_size)
    assert [kept.round for kept in read(path)] == [1, 2, 3]
    assert verify(path) == ()


def test_the_hash_is_that_of_the_line_without_it(tmp_path: Path):
    (line,) = ledger_of(tmp_path, 1).read_bytes().splitlines()
    kept = json.loads(line)
    digest = kept.pop("hash")
    text = json.dumps(kept, separators=(",", ":")).encode()
    found = subprocess.run(["sha256sum"], input=text, capture_output=True, check=True)
    assert found.stdout.split()[0].decode() == digest


def test_only_its_owner_reads_it(tmp_path: Path):
    old = os.umask(0)
    try:
        path = ledger_of(tmp_path, 1)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.data())
def test_a_changed_byte_is_found(five, tmp_path_factory, data):
    ledger, head = five
    end = ledger.rindex(b"\n")
    at = data.draw(st.integers(0, end - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != ledger[at]))
    changed = ledger[:at] + bytes([byte]) + ledger[at + 1 :]
    assert verify(written(tmp_path_factory.mktemp("c"), changed, head)) != ()


@given(st.integers(0, 4))
def test_a_missing_line_is_found(five, tmp_path_factory, gone: int):
    ledger, head = five
    lines = ledger.splitlines(keepends=True)
    left = b"".join(lines[:gone] + lines[gone + 1 :])
    (found, *_) = verify(written(tmp_path_factory.mktemp("m"), left, head))
    assert found == (
        f"line {gone + 1}: expected entry {gone + 1}: {gone + 1} to {gone + 1} are missing"
        if gone < 4
        else "the end: expected 5 entries as egress.head says, found 4: the last ones are missing"
    )


@given(st.permutations(range(5)).filter(lambda order: list(order) != sorted(order)))
def test_another_order_is_found(five, tmp_path_factory, order: list[int]):
    ledger, head = five
    lines = ledger.splitlines(keepends=True)
    moved = b"".join(lines[index] for index in order)
    assert verify(written(tmp_path_factory.mktemp("o"), moved, head)) != ()


@given(st.data())
def test_a_ledger_that_is_cut_anywhere_lacks_its_end(five, tmp_path_factory, data):
    ledger, head = five
    cut = data.draw(st.integers(0, len(ledger) - 2))
    found = verify(written(tmp_path_factory.mktemp("t"), ledger[:cut], head))
    n_left = ledger[: cut + 1].count(b"\n")  # a line that lacks only its end is whole
    assert any(f"found {n_left}: the last ones are missing" in line for line in found)


def test_nothing_is_added_to_a_ledger_that_was_shortened(five, tmp_path: Path):
    ledger, head = five
    path = written(tmp_path, ledger[:-20], head)
    with pytest.raises(ConfigError, match="lines are missing; show both files"):
        append(path, entry())
    head_file(path).unlink()
    with pytest.raises(ConfigError, match=r"egress\.head: expected beside"):
        append(path, entry())
    assert path.read_bytes() == ledger[:-20]
    assert verify(path)[-1].startswith("egress.head: is missing")


@settings(max_examples=25)  # each writes to the disk, and waits for it
@given(st.data())
def test_after_a_crash_in_the_middle_of_a_line_the_next_line_says_so(tmp_path_factory, data):
    path = ledger_of(tmp_path_factory.mktemp("crash"), 2)
    before, head = path.read_bytes(), head_file(path).read_bytes()
    append(path, entry(3))
    line = path.read_bytes()[len(before) :]
    cut = data.draw(st.integers(1, len(line) - 2))
    written(path.parent, before + line[:cut], head)
    assert verify(path) == ()  # nothing was sent for what is cut
    append(path, entry(4))
    assert verify(path) == ()
    kept = list(read(path))
    assert [(e.n, e.kind) for e in kept] == [
        (1, "train"),
        (2, "train"),
        (3, RECOVERED),
        (4, "train"),
    ]
    assert f"a crash cut the line above short after {cut + 1} bytes" in words(kept[2])
    fragment = path.read_bytes().splitlines(keepends=True)[2]
    edited = path.read_bytes().replace(fragment, fragment[:-1] + b"?\n")
    path.write_bytes(edited)
    assert verify(path) == ("line 3: cannot be read, and no crash explains it",)


@pytest.mark.parametrize("ended", [True, False])
def test_a_crash_before_the_head_was_written_is_recognised(tmp_path: Path, ended: bool):
    path = ledger_of(tmp_path, 2)
    head = head_file(path).read_bytes()
    append(path, entry(3))
    content = path.read_bytes() if ended else path.read_bytes()[:-1]
    written(tmp_path, content, head)
    assert verify(path) == ()
    append(path, entry(4))
    assert verify(path) == ()
    assert [(e.n, e.round) for e in read(path)] == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_a_crash_while_a_crash_is_marked_is_marked_too(tmp_path: Path):
    path = ledger_of(tmp_path, 1)
    before, head = path.read_bytes(), head_file(path).read_bytes()
    written(tmp_path, before + b'{"n":2,"ti', head)
    append(path, entry(2))
    lines = path.read_bytes()[len(before) :].splitlines(keepends=True)
    marked = b"".join(lines[:2])  # the fragment, and what says so
    edges = (
        1,
        2,
        len(lines[0]) - 1,
        len(lines[0]),
        len(lines[0]) + 1,
        len(marked) - 1,
        len(marked),
    )
    for cut in sorted({*edges, *range(1, len(marked), 29)}):
        written(tmp_path, before + marked[:cut], head)
        append(path, entry(2))
        assert verify(path) == (), cut
        assert next(e for e in read(path) if e.n == 2).kind == RECOVERED


def test_a_crash_before_the_first_line_is_recognised(tmp_path: Path):
    path = tmp_path / "egress.jsonl"
    append(path, entry())
    head_file(path).write_text('{"count": 0, "hash": "' + "0" * 64 + '", "bytes": 0}')
    assert verify(path) == ()
    append(path, entry(2))
    assert verify(path) == ()


def test_a_full_disk_is_an_error_and_not_a_line(tmp_path: Path):
    path = tmp_path / "egress.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(DiskError, match="No space left on device"):
        append(path, entry())


WRITER = """
import sys
from pathlib import Path
from client.egress.entry import Entry
from client.egress.ledger import append, now
n = 0
while True:
    n += 1
    append(Path(sys.argv[1]), Entry(n=1, time=now(), kind="train", run="x" * 20000, round=n))
"""


def test_a_process_that_is_killed_again_and_again_leaves_a_ledger_that_is_whole(tmp_path: Path):
    path = tmp_path / "egress.jsonl"
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        before = path.stat().st_size if path.exists() else 0
        while not path.exists() or path.stat().st_size < before + 60_000:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    append(path, entry())
    assert verify(path) == ()
    assert len(list(read(path))) > 12


def test_two_processes_take_turns(tmp_path: Path):
    path = tmp_path / "egress.jsonl"
    once = WRITER.replace("while True:", "while n < 20:")
    running = [subprocess.Popen([sys.executable, "-c", once, str(path)]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert verify(path) == ()
    assert len(list(read(path))) == 40


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"method": "fedavg", "round": 3, "bytes": 3 * 2**20},
            "run r, fedavg, round 3: answer to train, 3.0 MiB, of which 2.0 MiB are weights",
        ),
        (
            {"kind": "measure", "round": None, "run": None, "objects": (), "bytes": 700},
            "no run: answer to measure, 700 bytes",
        ),
        (
            {"error": "policy:epochs", "round": None},
            "run r: train was not done; only the code 'policy:epochs' left",
        ),
    ],
)
def test_a_line_in_plain_words(fields: dict[str, object], line: str):
    weights = SentObject(id="b" * 64, kind="ArrayChunk", bytes=2**21)
    made = entry(**{"objects": (weights,), "time": "2026-11-21T18:59:01.123+00:00", **fields})
    assert words(made) == f"1. 2026-11-21 18:59:01 UTC: {line}"


def test_a_ledger_that_is_not_there_is_said_so(tmp_path: Path):
    with pytest.raises(ConfigError, match="expected a ledger, found No such file"):
        verify(tmp_path / "egress.jsonl")
