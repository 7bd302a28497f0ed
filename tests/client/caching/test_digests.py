"""What is known of raw files is trusted only as long as nothing can have changed unseen."""

import os
import time
from pathlib import Path

import pytest

from client.caching import digests
from client.caching.digests import TABLE, contents_of, facts_of
from common.errors import DataError

SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
SHA256_OF_ABD = "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files that were just written count as left alone: a test cannot wait 10 s."""
    monkeypatch.setattr(digests, "SETTLED_NS", -(10**9))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    path = written(tmp_path / "raw", b"abc")
    assert contents_of([path], tmp_path / "cache")[path].sha256 == SHA256_OF_ABC


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    path = written(tmp_path / "raw", b"abc")
    contents_of([path], tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path / "raw", b"abc")
    facts = path.stat()
    contents_of([path], tmp_path / "cache")
    with path.open("r+b") as file:  # the same inode and size
        file.write(b"abd")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert contents_of([path], tmp_path / "cache")[path].sha256 == SHA256_OF_ABD


@pytest.mark.usefixtures("settled")
def test_a_file_that_was_left_alone_is_not_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "doe_jane", b"abc")
    contents_of([path], tmp_path / "cache")
    table = tmp_path / "cache" / TABLE
    assert b"doe" not in table.read_bytes()
    table.write_text(table.read_text().replace(SHA256_OF_ABC, "as the table says"))
    assert contents_of([path], tmp_path / "cache")[path].sha256 == "as the table says"


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("content", [b"abcd", b"abd"])
def test_a_changed_file_is_read_again(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "raw", b"abc")
    before = contents_of([path], tmp_path / "cache")[path]
    time.sleep(0.02)
    written(path, content)
    after = contents_of([path], tmp_path / "cache")[path]
    assert after.sha256 != before.sha256
    assert after.facts == facts_of(path)


@pytest.mark.usefixtures("settled")
def test_a_file_with_an_old_date_in_the_place_of_another_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "raw", b"abc")
    facts = path.stat()
    contents_of([path], tmp_path / "cache")
    os.utime(written(tmp_path / "other", b"abd"), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tmp_path / "other").replace(path)
    assert contents_of([path], tmp_path / "cache")[path].sha256 == SHA256_OF_ABD


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("table", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_damaged_table_only_costs_time(tmp_path: Path, table: bytes) -> None:
    path = written(tmp_path / "raw", b"abc")
    (tmp_path / "cache").mkdir()
    written(tmp_path / "cache" / TABLE, table)
    assert contents_of([path], tmp_path / "cache")[path].sha256 == SHA256_OF_ABC


@pytest.mark.usefixtures("settled")
def test_a_cache_that_cannot_be_written_can_still_be_used(tmp_path: Path) -> None:
    path = written(tmp_path / "raw", b"abc")
    folder = written(tmp_path / "cache", b"a file where the folder should be")
    assert contents_of([path], folder)[path].sha256 == SHA256_OF_ABC


def test_every_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        contents_of([tmp_path / "a", tmp_path / "b"], tmp_path / "cache")
    assert [Path(defect.file).name for defect in raised.value.defects] == ["a", "b"]
    assert raised.value.defects[0].expected == "a readable file"
