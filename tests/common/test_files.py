"""A file is replaced whole or stays as it was; old rounds go, nothing else is left about."""

import resource
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from common.errors import ConfigError, DiskError
from common.files import PRIVATE, keep_recent, locked, replacing, write_atomically


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file of this process grow beyond 10 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_written_with_the_folders_above_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", b"new")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"a long first content")
    write_atomically(tmp_path / "file", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"new")]


def test_others_may_read_a_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(DiskError, match="file: cannot be written: File too large"):
        write_atomically(tmp_path / "file", b"a content of more than ten bytes")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_a_file_where_a_folder_is_expected_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(DiskError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "below", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_folder_where_the_file_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file" / "below").mkdir(parents=True)
    with pytest.raises(DiskError, match="cannot be written"):
        write_atomically(tmp_path / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_the_users_to_mend_and_ends_with_the_code_of_a_mistake() -> None:
    assert issubclass(DiskError, ConfigError)
    assert DiskError.exit_code == 2


def left(folder: Path, newest: str, n_rounds: int, *names: str) -> list[str]:
    for name in names:
        (folder / name).touch()
    keep_recent(folder / newest, n_rounds)
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_rounds_are_kept_counted_backwards(tmp_path: Path) -> None:
    names = ("round-0001.bin", "round-0002.bin", "round-0003.bin", "round-0004.bin")
    assert left(tmp_path, "round-0004.bin", 3, *names) == [*names[1:]]
    assert left(tmp_path, "round-0004.bin", 1) == ["round-0004.bin"]


def test_the_last_round_before_a_gap_is_kept(tmp_path: Path) -> None:
    names = ("round-0001.bin", "round-0002.bin", "round-0009.bin")
    assert left(tmp_path, "round-0009.bin", 2, *names) == ["round-0002.bin", "round-0009.bin"]


def test_rounds_of_an_earlier_run_of_the_same_name_are_deleted(tmp_path: Path) -> None:
    names = ("round-0001.bin", "round-0008.bin", "round-0009.bin")
    assert left(tmp_path, "round-0001.bin", 2, *names) == ["round-0001.bin"]


def test_rounds_beyond_four_digits_are_later_ones(tmp_path: Path) -> None:
    names = ("round-9998.bin", "round-9999.bin", "round-10000.bin")
    kept = ["round-10000.bin", "round-9999.bin"]
    assert left(tmp_path, "round-10000.bin", 2, *names) == kept


def test_files_of_another_name_or_ending_are_no_rounds(tmp_path: Path) -> None:
    others = (".round-0001.bin.abc", "notes.bin", "round-0001.txt")
    found = left(tmp_path, "round-0005.bin", 1, *others, "round-0001.bin", "round-0005.bin")
    assert found == [".round-0001.bin.abc", "notes.bin", "round-0001.txt", "round-0005.bin"]


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    with replacing(tmp_path / "secret", mode=PRIVATE) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_bytes(b"")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as mine:
        assert locked(mine)
        with path.open("r") as another:
            assert not locked(another)
    with path.open("r") as another:
        assert locked(another)


def test_who_waits_for_a_lock_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    taken: list[bool] = []

    def wait() -> None:
        with path.open("r") as file:
            taken.append(locked(file, wait=True))

    with path.open("w") as mine:
        assert locked(mine)
        waiting = Thread(target=wait)
        waiting.start()
        waiting.join(0.1)
        assert taken == []
    waiting.join(10)
    assert taken == [True]
