"""The cache is whole or absent, the same every time, and knows no names."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import client
from client.cache import (
    CacheEntry,
    check_space,
    keep_in_memory,
    open_entry,
    prepare_case,
    prepare_dataset,
)
from client.nifti import grid_of, write_image, write_labels
from common.case import Case
from common.errors import ConfigError, DataError, DiskError
from common.plan import Configuration, Normalization, Plan, PlannedFor, sealed
from common.task import Task

EVERYTHING = (slice(None), slice(None), slice(None))
TASK = Task(
    name="toy",
    version=1,
    channels=("A", "B"),
    labels={"background": 0, "one": 1, "two": 2},
    regions={"one": (1,), "two": (2,)},
)
CONFIGURATION = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(6.0, 5.0, 4.0),
    patch_size=(4, 4, 4),
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
        planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
        channels=("A", "B"),
        transpose=(0, 1, 2),
        normalization=(
            Normalization(channel="A", scheme="z-score"),
            Normalization(channel="B", scheme="ct", clip_low=0.0, clip_high=9.0, mean=0.0, std=1.0),
        ),
        configurations={"3d_fullres": CONFIGURATION},
    )
)


def case_in(folder: Path, name: str, seed: int = 0, *, edge: int = 6) -> Case:
    """Write a 2-channel case of (edge, 5, 4) voxels; channel B counts 1 to 9 along x, y, z."""
    shape = (edge, 5, 4)
    rng = np.random.default_rng(seed)
    channels = (
        rng.standard_normal(shape).astype(np.float32),
        (np.arange(edge * 20) % 9 + 1).astype(np.float32).reshape(shape),
    )
    labels = np.zeros(shape, np.uint8)
    labels[0, 0, :2] = 1
    labels[-1, -1, -1] = 2
    grid = grid_of((1.0, 1.0, 1.0), shape)
    paths = (folder / f"{name}_a.nii.gz", folder / f"{name}_b.nii.gz")
    for path, image in zip(paths, channels, strict=True):
        write_image(path, image, grid)
    write_labels(folder / f"{name}_seg.nii.gz", labels, grid)
    return Case(name, paths, folder / f"{name}_seg.nii.gz")


def prepared(cases: list[Case], folder: Path) -> tuple[CacheEntry, ...]:
    return prepare_dataset(cases, TASK, PLAN, CONFIGURATION, folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_entry_gives_back_regions_of_the_prepared_case(tmp_path: Path) -> None:
    (entry,) = prepared([case_in(tmp_path, "p1")], tmp_path / "cache")
    region = entry.image((slice(0, 1), slice(0, 2), slice(1, 4)))
    assert entry.shape == (6, 5, 4)
    assert region.shape == (2, 1, 2, 3)
    assert region.dtype == np.float32
    np.testing.assert_allclose(region[1], [[[2, 3, 4], [6, 7, 8]]], atol=1e-6)
    assert entry.labels((slice(0, 1), slice(0, 1), EVERYTHING[0])).tolist() == [[[1, 1, 0, 0]]]
    assert entry.labels(EVERYTHING).dtype == np.uint8


def test_an_entry_knows_where_its_foreground_lies(tmp_path: Path) -> None:
    (entry,) = prepared([case_in(tmp_path, "p1")], tmp_path / "cache")
    assert {value: rows.tolist() for value, rows in entry.foreground.items()} == {
        1: [[0, 0, 0], [0, 0, 1]],
        2: [[5, 4, 3]],
    }


def test_foreground_of_two_digit_labels_is_not_mixed_up(tmp_path: Path) -> None:
    mapped = replace(
        TASK,
        labels={"background": 0, "one": 2, "two": 10},
        label_mapping={1: 10},
        regions={"r": (2,)},
    )
    entry = prepare_case(case_in(tmp_path, "p1"), mapped, PLAN, CONFIGURATION, tmp_path / "cache")
    assert {value: rows.tolist() for value, rows in entry.foreground.items()} == {
        2: [[5, 4, 3]],
        10: [[0, 0, 0], [0, 0, 1]],
    }


def test_an_entry_kept_in_memory_is_the_same(tmp_path: Path) -> None:
    entries = prepared([case_in(tmp_path, "p1"), case_in(tmp_path, "p2", 1)], tmp_path / "cache")
    assert entries[0].nbytes == 6 * 5 * 4 * (2 * 4 + 1)
    kept = keep_in_memory(entries, 1500)  # one entry of 1080 bytes, not two
    assert [entry.in_memory for entry in kept] == [True, False]
    np.testing.assert_array_equal(kept[0].image(EVERYTHING), entries[0].image(EVERYTHING))
    np.testing.assert_array_equal(kept[0].labels(EVERYTHING), entries[0].labels(EVERYTHING))


def test_entries_come_in_the_order_of_the_cases(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i, edge=4 + i) for i in range(3)]
    seen: list[tuple[int, int]] = []
    entries = prepare_dataset(
        cases[::-1],
        TASK,
        PLAN,
        CONFIGURATION,
        tmp_path / "cache",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [entry.shape[0] for entry in entries] == [6, 5, 4]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_preparing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, "p1"), case_in(tmp_path, "p2", 1)]
    prepared(cases, tmp_path / "first")
    prepared(cases[::-1], tmp_path / "second")
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_prepared_case_is_not_prepared_again(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    before = (entry.folder / "image.b2nd").stat()
    again = prepare_case(case, TASK, PLAN, CONFIGURATION, tmp_path / "cache")
    after = (again.folder / "image.b2nd").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_changed_files_and_another_plan_make_another_entry(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    (first,) = prepared([case], tmp_path / "cache")
    other_plan = sealed(replace(PLAN, limits=("batch",)))
    (second,) = prepare_dataset([case], TASK, other_plan, CONFIGURATION, tmp_path / "cache")
    unlabelled = prepare_case(
        replace(case, label=None), TASK, PLAN, CONFIGURATION, tmp_path / "cache"
    )
    case_in(tmp_path, "p1", seed=1)
    (changed,) = prepared([case], tmp_path / "cache")
    assert len({first.folder, second.folder, unlabelled.folder, changed.folder}) == 4


def test_a_case_without_labels_has_none_to_give(tmp_path: Path) -> None:
    case = replace(case_in(tmp_path, "p1"), label=None)
    entry = prepare_case(case, TASK, PLAN, CONFIGURATION, tmp_path / "cache")
    assert entry.foreground == {}
    assert entry.image(EVERYTHING).shape == (2, 6, 5, 4)
    with pytest.raises(DataError, match="expected a labelled case"):
        entry.labels(EVERYTHING)


def test_no_name_of_a_case_is_in_the_cache(tmp_path: Path) -> None:
    prepared([case_in(tmp_path, "doe_jane_1970")], tmp_path / "cache")
    for path, content in contents(tmp_path / "cache").items():
        assert "doe" not in path
        assert b"doe" not in content


def test_two_that_prepare_at_once_share_the_entries(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(6)]
    with ThreadPoolExecutor(4) as executor:
        runs = list(executor.map(lambda _: prepared(cases, tmp_path / "cache"), range(4)))
    folders = [[entry.folder for entry in run] for run in runs]
    assert folders.count(folders[0]) == 4
    assert len(list((tmp_path / "cache").glob("*/*"))) == 6  # and nothing temporary is left


def test_a_preparation_that_is_killed_leaves_whole_entries_only(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i, edge=3000) for i in range(4)]
    program = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from pathlib import Path\n"
        "from test_cache import *\n"
        "folder = Path(sys.argv[3])\n"
        "cases = [Case(f'p{i}', (folder / f'p{i}_a.nii.gz', folder / f'p{i}_b.nii.gz'),\n"
        "    folder / f'p{i}_seg.nii.gz') for i in range(4)]\n"
        "prepared(cases, folder / 'cache')\n"
    )
    rooms, tests = Path(client.__file__).parents[1], Path(__file__).parent
    command = [sys.executable, "-c", program, str(rooms), str(tests), str(tmp_path)]
    process = subprocess.Popen(command, env={"PYTHONDONTWRITEBYTECODE": "1"})
    while process.poll() is None and not list((tmp_path / "cache").glob("*/.*/*")):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for folder in (tmp_path / "cache").glob("*/[!.]*"):
        assert open_entry(folder).image(EVERYTHING).shape == (2, 3000, 5, 4)
    resumed = prepared(cases, tmp_path / "cache")
    undisturbed = prepared(cases, tmp_path / "other")
    for left, right in zip(resumed, undisturbed, strict=True):
        assert contents(left.folder) == contents(right.folder)


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"cache: the cache needs 1048576\.0 GiB, .* GiB free"):
        check_space(tmp_path / "cache", 2**50)
    huge = replace(CONFIGURATION, median_shape=(1e6, 1e6, 1e6))
    with pytest.raises(DiskError, match="the cache needs"):
        prepare_dataset([case_in(tmp_path, "p1")], TASK, PLAN, huge, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_what_a_killed_process_left_a_day_ago_is_removed(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    old, young = entry.folder.parent / ".old", entry.folder.parent / ".young"
    for folder in (old, young):
        folder.mkdir()
    day_ago = time.time() - 90_000
    os.utime(old, (day_ago, day_ago))
    prepared([case], tmp_path / "cache")
    assert not old.exists()
    assert young.exists()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DiskError, match="cannot be written"):
        prepared([case_in(tmp_path, "p1")], tmp_path / "cache")


def test_labels_on_another_grid_are_a_defect_of_the_case(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    write_labels(
        tmp_path / "p1_seg.nii.gz",
        np.zeros((6, 5, 3), np.uint8),
        grid_of((1.0, 1.0, 1.0), (6, 5, 3)),
    )
    with pytest.raises(DataError, match="the grid of the image"):
        prepared([case], tmp_path / "cache")


def test_a_missing_file_is_a_defect_of_the_case(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    case.images[1].unlink()
    with pytest.raises(DataError, match=r"p1_b\.nii\.gz: expected a readable file"):
        prepared([case], tmp_path / "cache")


def test_a_folder_without_an_entry_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"meta\.json"):
        open_entry(tmp_path)


@pytest.mark.real_data
def test_real_cases_are_prepared_at_their_own_size(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "Task04_Hippocampus"
    image = min((folder / "imagesTr").glob("hippocampus_*.nii.gz"))
    case = Case("one", (image,), folder / "labelsTr" / image.name)
    task = replace(TASK, channels=("A",))
    plan = sealed(replace(PLAN, channels=("A",), normalization=PLAN.normalization[:1]))
    entry = prepare_case(case, task, plan, CONFIGURATION, tmp_path)
    voxels = entry.image(EVERYTHING)
    assert entry.shape == (35, 51, 35)
    assert abs(float(voxels.mean())) < 1e-4
    assert float(voxels.std()) == pytest.approx(1, abs=1e-4)
    assert {value: len(rows) for value, rows in entry.foreground.items()} == {1: 1324, 2: 1624}
