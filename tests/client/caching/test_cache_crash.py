"""Whatever happens to a preparation, the next one ends with the cache of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import client
from client.caching.prepare_cases import fill_cache
from client.caching.scratch import PREFIX
from client.dataset.nifti import grid_of, write_image, write_labels
from common.case import Case
from common.codec import read_json, write_json
from common.errors import DiskError
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor, sealed
from common.task import Task

N_CASES = 6
SHAPE = (40, 36, 32)
TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)
CONFIGURATION = Configuration(
    spacing_mm=(0.8, 0.8, 0.8),
    median_shape=(50.0, 45.0, 40.0),
    patch_size=(16, 16, 16),
    batch_size=2,
    strides=(),
    kernel_sizes=((3, 3, 3),),
    features_per_stage=(8,),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)
PLAN = sealed(
    Plan(
        schema=1,
        hash="",
        rules="paper",
        planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=1, memory_gb=8.0),
        channels=("A",),
        transpose=(0, 1, 2),
        normalization=(Normalization(channel="A", scheme="z-score"),),
        configurations={"3d_fullres": CONFIGURATION},
    )
)
PROGRAM = """
import resource
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from client.caching.prepare_cases import prepare_dataset
from common.case import Case
from common.codec import read_json
from common.errors import ConsiliumError
from common.planning.plan import Plan
from common.task import Task

def main():
    data, cache, processes, limit = Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])
    task, plan = read_json(Task, data / "task.json"), read_json(Plan, data / "plan.json")
    labels = sorted(data.glob("*_seg.nii"))
    cases = [Case(p.name[:2], (data / f"{p.name[:2]}_a.nii",), p) for p in labels]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    tell = lambda done, total: print(done, flush=True)
    try:
        prepare_dataset(cases, task, plan, plan.configurations["3d_fullres"], cache,
            progress=tell, processes=processes)
    except ConsiliumError as error:
        sys.exit(f"{type(error).__name__}: {error}")

if __name__ == "__main__":
    print("begin", flush=True)
    main()
"""


@dataclass(frozen=True)
class Data:
    folder: Path
    undisturbed: dict[str, bytes]
    """Files of the cache that nothing disturbed."""

    @property
    def cases(self) -> list[Case]:
        names = [f"p{index}" for index in range(N_CASES)]
        paths = [(self.folder / f"{name}_a.nii", self.folder / f"{name}_seg.nii") for name in names]
        return [Case(name, (a,), seg) for name, (a, seg) in zip(names, paths, strict=True)]

    def prepare(self, cache: Path) -> None:
        fill_cache(self.cases, TASK, PLAN, CONFIGURATION, cache)

    def begin(self, cache: Path, processes: int, largest_file: int = 0) -> subprocess.Popen[str]:
        room = Path(client.__file__).parents[1]
        program = self.folder / "program.py"
        return subprocess.Popen(
            [sys.executable, program, room, self.folder, cache, str(processes), str(largest_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("crash")
    grid = grid_of((1.0, 1.0, 1.0), SHAPE)
    for index in range(N_CASES):
        rng = np.random.default_rng(index)
        image = rng.integers(1, 500, SHAPE).astype(np.float32)
        write_image(folder / f"p{index}_a.nii", image, grid)
        write_labels(folder / f"p{index}_seg.nii", (image > 300).astype(np.uint8), grid)
    write_json(folder / "task.json", TASK)
    write_json(folder / "plan.json", PLAN)
    (folder / "program.py").write_text(PROGRAM)
    described = Data(folder, {})
    described.prepare(folder / "cache")
    return Data(folder, contents(folder / "cache"))


def contents(cache: Path) -> dict[str, bytes]:
    """Return every file of a cache but the table of raw files, which depends on their times."""
    files = (path for path in cache.rglob("*") if path.is_file() and path.parent != cache)
    return {str(path.relative_to(cache)): path.read_bytes() for path in files}


def moments() -> Iterator[tuple[int, float, int]]:
    """Draw when to kill: after how many cases, how long after that, and how many processes."""
    rng = np.random.default_rng(4)
    for index in range(10):
        yield int(rng.integers(N_CASES - 2)), float(rng.uniform(0, 0.03)), 2 if index < 3 else 1


@pytest.mark.parametrize(("n_done", "delay_s", "processes"), moments())
def test_after_a_kill_at_any_moment_the_cache_equals_an_undisturbed_one(
    data: Data, tmp_path: Path, n_done: int, delay_s: float, processes: int
) -> None:
    process = data.begin(tmp_path, processes)
    for line in process.stdout:
        if line.strip() in {"begin" if n_done == 0 else str(n_done), str(N_CASES)}:
            break
    time.sleep(delay_s)
    process.kill()
    process.communicate()  # reads to the end: until all its processes are gone
    left = contents(tmp_path)
    whole = {name: data.undisturbed[name] for name in left if PREFIX not in name}
    assert {name: left[name] for name in whole} == whole
    data.prepare(tmp_path)
    assert contents(tmp_path) == data.undisturbed
    assert not list(tmp_path.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_stops_at_once_and_leaves_nothing_half(
    data: Data, tmp_path: Path, processes: int
) -> None:
    process = data.begin(tmp_path, processes)
    while process.stdout.readline() != "1\n":
        pass
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # a terminal interrupts the whole group
    _, words = process.communicate()
    assert time.monotonic() - began < 5
    assert words.count("KeyboardInterrupt") == 1  # of the first process only
    assert not list(tmp_path.glob(f"{PREFIX}*"))
    left = contents(tmp_path)
    assert left == {name: data.undisturbed[name] for name in left}


def test_a_killed_helper_is_one_clear_error(data: Data, tmp_path: Path) -> None:
    process = data.begin(tmp_path, 2)
    while process.stdout.readline() != "1\n":
        pass
    children = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(process.pid)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    helpers = [int(line.split()[0]) for line in children if "spawn_main" in line]
    os.kill(helpers[0], signal.SIGKILL)
    _, words = process.communicate()
    assert words.startswith("ConfigError: one of 2 processes was killed, probably for lack of mem")
    assert len(words.splitlines()) == 1
    assert not list(tmp_path.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_up_is_a_clear_error_and_the_site_can_go_on(
    data: Data, tmp_path: Path, processes: int
) -> None:
    largest = max(map(len, data.undisturbed.values()))
    process = data.begin(tmp_path, processes, largest - 100)
    _, words = process.communicate()
    assert process.returncode == 1
    assert words.startswith("DiskError: ")
    assert "cannot be written: File too large; what was finished is kept" in words
    assert len(words.splitlines()) == 1
    assert not list(tmp_path.glob(f"{PREFIX}*"))
    left = contents(tmp_path)
    assert left == {name: data.undisturbed[name] for name in left}
    data.prepare(tmp_path)
    assert contents(tmp_path) == data.undisturbed


def test_a_full_file_system_is_a_clear_error_and_the_site_can_go_on(
    data: Data, tmp_path: Path
) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path],
        check=False,
        capture_output=True,
    ).returncode:
        pytest.skip("mounting a small file system needs more rights")
    try:
        filler, cache = tmp_path / "filler", tmp_path / "cache"

        def fill(_done: int, _all: int) -> None:
            with suppress(OSError), filler.open("ab", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

        with pytest.raises(DiskError, match=r"No space left on device; what was finished is kept"):
            fill_cache(data.cases[:2], TASK, PLAN, CONFIGURATION, cache, progress=fill)
        assert len(contents(cache)) == 4
        with pytest.raises(DiskError, match=r"the cache needs .* 0\.0 MiB free"):
            data.prepare(cache)
        filler.unlink()
        data.prepare(cache)
        assert contents(cache) == data.undisturbed
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_two_that_prepare_the_same_cases_at_once_both_succeed(data: Data, tmp_path: Path) -> None:
    processes = [data.begin(tmp_path, 1), data.begin(tmp_path, 2)]
    words = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [stderr for _, stderr in words] == ["", ""]
    assert contents(tmp_path) == data.undisturbed
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_the_program_reads_what_the_test_wrote(data: Data) -> None:
    assert read_json(Task, data.folder / "task.json") == TASK
    assert read_json(Plan, data.folder / "plan.json") == PLAN
    assert len(data.undisturbed) == 4 * N_CASES
