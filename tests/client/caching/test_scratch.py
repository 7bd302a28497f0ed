"""Temporary folders of the dead are removed at once, those of the living never."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import client
from client.caching.scratch import PREFIX, scratch, sweep
from common.errors import DiskError

ROOM = Path(client.__file__).parents[1]
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from client.caching.scratch import scratch
with scratch(Path(sys.argv[2])) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_in(parent: Path) -> list[Path]:
    return list(parent.glob(f"{PREFIX}*"))


def test_a_folder_is_there_while_it_is_needed_and_gone_afterwards(tmp_path: Path) -> None:
    with scratch(tmp_path / "new") as folder:
        (folder / "file").write_text("content")
        assert left_in(tmp_path / "new") == [folder]
    assert left_in(tmp_path / "new") == []


def test_what_a_killed_process_left_is_removed_at_once(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, ROOM, tmp_path], check=False)
    (left,) = left_in(tmp_path)
    assert (left / "half").exists()
    sweep(tmp_path)
    assert left_in(tmp_path) == []


def test_what_is_at_work_or_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    with scratch(tmp_path) as folder:
        sweep(tmp_path)
        assert left_in(tmp_path) == [folder]
    assert (tmp_path / ".git").exists()


def test_a_folder_whose_owner_died_before_it_locked_it_is_removed(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}abc").mkdir()
    sweep(tmp_path)
    assert left_in(tmp_path) == []


def test_sweeping_all_the_time_takes_nothing_from_those_at_work(tmp_path: Path) -> None:
    def work(index: int) -> bool:
        with scratch(tmp_path) as folder:
            sweep(tmp_path)
            (folder / "file").write_text(str(index))
            sweep(tmp_path)
            return (folder / "file").read_text() == str(index)

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(work, range(200)))
    assert left_in(tmp_path) == []


def test_without_locks_age_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_lock: int, _how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    old, young = tmp_path / f"{PREFIX}old", tmp_path / f"{PREFIX}young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    sweep(tmp_path)
    assert left_in(tmp_path) == [young]
    with scratch(tmp_path) as folder:
        assert folder.exists()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DiskError, match="file: cannot be written"), scratch(tmp_path / "file"):
        pass
