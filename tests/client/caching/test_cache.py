"""The cache is whole or absent, the same every time, and knows no names."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.caching.cache import CacheEntry, keep_in_memory, open_entry
from client.caching.entry_files import add_previous
from client.caching.prepare_cases import THREADS, fill_cache, prepare_case, prepare_dataset
from client.caching.space import used_bytes
from client.dataset.nifti import grid_of, write_image, write_labels
from common.case import Case
from common.errors import ConfigError, DataError, DiskError
from common.planning.plan import (
    Configuration,
    Configuration2d,
    Normalization,
    Plan,
    PlannedFor,
    sealed,
)
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
    """Return every file of a cache but the table of raw files, which depends on their times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
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
    for path in (tmp_path / "cache").rglob("*"):
        assert "doe" not in str(path.relative_to(tmp_path))
        assert path.is_dir() or b"doe" not in path.read_bytes()


def test_two_that_prepare_at_once_share_the_entries(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(6)]
    with ThreadPoolExecutor(4) as executor:
        runs = list(executor.map(lambda _: prepared(cases, tmp_path / "cache"), range(4)))
    folders = [[entry.folder for entry in run] for run in runs]
    assert folders.count(folders[0]) == 4
    assert len(list((tmp_path / "cache").glob("*/*"))) == 6  # and nothing temporary is left


def test_several_processes_give_the_same_bytes_as_one(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(3)]
    seen: list[tuple[int, int]] = []
    prepared(cases, tmp_path / "one")
    several = fill_cache(
        cases,
        TASK,
        PLAN,
        CONFIGURATION,
        tmp_path / "several",
        processes=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert contents(tmp_path / "one") == contents(tmp_path / "several")
    assert several.n_prepared == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_only_what_is_missing_is_prepared(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(3)]
    prepared(cases[:2], tmp_path / "cache")
    seen: list[tuple[int, int]] = []
    filled = fill_cache(
        cases,
        TASK,
        PLAN,
        CONFIGURATION,
        tmp_path / "cache",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (len(filled.entries), filled.n_prepared, filled.n_damaged) == (3, 1, 0)
    assert seen == [(2, 3), (3, 3)]


def test_two_cases_with_the_same_content_share_an_entry(tmp_path: Path) -> None:
    first, second = prepared([case_in(tmp_path, "p1"), case_in(tmp_path, "p2")], tmp_path / "cache")
    assert first.folder == second.folder


@pytest.mark.parametrize("processes", [1, 2])
def test_every_defect_is_told_and_all_other_cases_are_prepared(
    tmp_path: Path, processes: int
) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(4)]
    for damaged in (0, 2):
        cases[damaged].images[1].write_bytes(b"no image")
    with pytest.raises(DataError) as raised:
        prepare_dataset(cases, TASK, PLAN, CONFIGURATION, tmp_path / "cache", processes=processes)
    assert sorted(defect.file[-11:] for defect in raised.value.defects) == [
        "p0_b.nii.gz",
        "p2_b.nii.gz",
    ]
    assert len(list((tmp_path / "cache").glob("*/*/meta.json"))) == 2


def test_a_2d_configuration_keeps_every_slice(tmp_path: Path) -> None:
    flat = Configuration2d(
        spacing_mm=(0.5, 1.0),
        median_shape=(10.0, 4.0),
        patch_size=(4, 4),
        batch_size=2,
        strides=(),
        kernel_sizes=((3, 3),),
        features_per_stage=(8,),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )
    (entry,) = prepare_dataset([case_in(tmp_path, "p1")], TASK, PLAN, flat, tmp_path / "cache")
    assert entry.shape == (6, 10, 4)
    assert entry.image((slice(2, 3), *EVERYTHING[1:])).shape == (2, 1, 10, 4)


def cut_short(entry: CacheEntry) -> None:
    path = entry.folder / "image.b2nd"
    path.write_bytes(path.read_bytes()[:-7])


def lose_the_labels(entry: CacheEntry) -> None:
    (entry.folder / "labels.b2nd").unlink()


def lose_the_record(entry: CacheEntry) -> None:
    (entry.folder / "meta.json").unlink()


def change_the_record(entry: CacheEntry) -> None:
    path = entry.folder / "meta.json"
    path.write_text(path.read_text().replace('"channels":2', '"channels":1'))


@pytest.mark.parametrize("damage", [cut_short, lose_the_labels, lose_the_record, change_the_record])
def test_a_damaged_entry_is_noticed_and_made_again(
    tmp_path: Path, damage: Callable[[CacheEntry], None]
) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    whole = contents(tmp_path / "cache")
    damage(entry)
    with pytest.raises((ConfigError, DataError), match=r"labels|image|meta\.json"):
        open_entry(entry.folder)
    filled = fill_cache([case], TASK, PLAN, CONFIGURATION, tmp_path / "cache")
    assert (filled.n_prepared, filled.n_damaged) == (1, 1)
    assert contents(tmp_path / "cache") == whole


@pytest.mark.parametrize("name", ["image.b2nd", "labels.b2nd", "foreground.npy"])
def test_a_flipped_bit_is_found_by_verifying(tmp_path: Path, name: str) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    whole = contents(tmp_path / "cache")
    content = bytearray((entry.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (entry.folder / name).write_bytes(content)
    unseen = fill_cache([case], TASK, PLAN, CONFIGURATION, tmp_path / "cache")
    assert unseen.n_damaged == 0
    seen = fill_cache([case], TASK, PLAN, CONFIGURATION, tmp_path / "cache", verify=True)
    assert (seen.n_prepared, seen.n_damaged) == (1, 1)
    assert contents(tmp_path / "cache") == whole


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_damaged_a_reader_finds_voxels_or_a_defect(tmp_path: Path, seed: int) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    whole = (entry.folder / "image.b2nd").read_bytes()
    rng = np.random.default_rng(seed)
    content = bytearray(whole)
    for place in rng.integers(len(content), size=4):
        content[place] = rng.integers(256)
    (entry.folder / "image.b2nd").write_bytes(content)
    with suppress(DataError):
        assert open_entry(entry.folder).image(EVERYTHING).shape == (2, 6, 5, 4)
    fill_cache([case], TASK, PLAN, CONFIGURATION, tmp_path / "cache", verify=True)
    assert (entry.folder / "image.b2nd").read_bytes() == whole


def test_a_reader_that_meets_damage_lets_the_entry_be_made_again(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    size = (entry.folder / "image.b2nd").stat().st_size
    (entry.folder / "image.b2nd").write_bytes(bytes(size))
    with pytest.raises(DataError, match="made anew when the data set is prepared the next time"):
        open_entry(entry.folder).image(EVERYTHING)
    (again,) = prepared([case], tmp_path / "cache")
    assert again.image(EVERYTHING).shape == (2, 6, 5, 4)


def test_labels_of_a_previous_stage_are_kept_beside_the_entry(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1")
    (entry,) = prepared([case], tmp_path / "cache")
    assert not entry.has_previous
    with pytest.raises(DataError, match="expected labels of a previous stage, found none"):
        entry.previous(EVERYTHING)
    labels = (np.arange(120) % 3).astype(np.uint8).reshape(6, 5, 4)
    first = add_previous(entry, labels, "weights-1")
    assert first.has_previous
    assert first.previous_source == "weights-1"
    assert first.previous((slice(0, 1), slice(0, 2), slice(1, 4))).tolist() == [
        [[1, 2, 0], [2, 0, 1]]
    ]
    second = add_previous(first, labels // 2, "weights-2")
    assert second.previous_source == "weights-2"
    assert second.previous(EVERYTHING)[0, 0].tolist() == [0, 0, 1, 0]
    assert len(list(entry.folder.glob("previous-*"))) == 1
    (same,) = prepared([case], tmp_path / "cache")
    assert same.has_previous


def test_damaged_labels_of_a_previous_stage_count_as_absent(tmp_path: Path) -> None:
    (entry,) = prepared([case_in(tmp_path, "p1")], tmp_path / "cache")
    added = add_previous(entry, np.zeros((6, 5, 4), np.uint8), "weights")
    (path,) = entry.folder.glob("previous-*")
    path.write_bytes(b"")
    assert not added.has_previous
    with pytest.raises(ValueError, match=r"expected uint8 of \(6, 5, 4\)"):
        add_previous(entry, np.zeros((6, 5, 5), np.uint8), "weights")


def test_too_little_space_is_said_before_a_case_is_written(tmp_path: Path) -> None:
    fine = replace(CONFIGURATION, spacing_mm=(1e-4, 1e-4, 1e-4))
    with pytest.raises(
        DiskError,
        match=r"cache: the cache needs at most 1039624\.2 GiB, .* free; "
        "expected a larger disk or a larger budget",
    ):
        prepare_dataset([case_in(tmp_path, "p1")], TASK, PLAN, fine, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_budget_that_is_too_small_is_said_before_a_case_is_written(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i, edge=2000) for i in range(4)]
    with pytest.raises(
        DiskError,
        match=r"needs about 0\.\d MiB \(at most 2\.4 MiB\), .* free, budget 0\.2 MiB, 0\.0 MiB of",
    ):
        prepare_dataset(cases, TASK, PLAN, CONFIGURATION, tmp_path / "cache", budget_bytes=200_000)
    assert not (tmp_path / "cache").exists()


def test_a_budget_may_be_below_what_uncompressed_cases_need(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i, edge=2000) for i in range(4)]
    entries = prepare_dataset(
        cases, TASK, PLAN, CONFIGURATION, tmp_path / "cache", budget_bytes=1_200_000
    )
    assert sum(entry.disk_bytes for entry in entries) < 1_000_000
    more = [*cases, case_in(tmp_path, "p4", 4, edge=9000)]
    with pytest.raises(DiskError, match=r"budget 1\.1 MiB, 0\.\d MiB of it used"):
        prepare_dataset(more, TASK, PLAN, CONFIGURATION, tmp_path / "cache", budget_bytes=1_200_000)


def test_a_file_that_changes_after_it_was_identified_is_a_defect(tmp_path: Path) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(2)]

    def change() -> None:
        case_in(tmp_path, "p1", seed=7)

    with pytest.raises(DataError, match=r"p1_a\.nii\.gz: expected a file that stays as it is"):
        prepare_dataset(
            cases,
            TASK,
            PLAN,
            CONFIGURATION,
            tmp_path / "cache",
            progress=lambda _done, _all: change(),
        )
    assert len(list((tmp_path / "cache").glob("*/*"))) == 1


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


def test_a_header_that_cannot_be_read_is_told_with_the_others_by_the_name_of_its_case(
    tmp_path: Path,
) -> None:
    cases = [case_in(tmp_path, f"p{i}", i) for i in range(3)]
    cases[0].images[0].write_bytes(b"no image")
    cases[1].images[1].write_bytes(b"no image")
    with pytest.raises(DataError) as raised:
        prepare_dataset(cases, TASK, PLAN, CONFIGURATION, tmp_path / "cache")
    assert [defect.case for defect in raised.value.defects] == ["p0", "p1"]
    assert len(list((tmp_path / "cache").glob("*/*/meta.json"))) == 1


def test_a_damaged_entry_is_made_again_in_a_budget_that_is_used_up(tmp_path: Path) -> None:
    case = case_in(tmp_path, "p1", edge=40)
    (entry,) = prepared([case], tmp_path / "cache")
    budget_bytes = used_bytes(tmp_path / "cache") + 10_000
    (entry.folder / "meta.json").unlink()
    filled = fill_cache(
        [case], TASK, PLAN, CONFIGURATION, tmp_path / "cache", budget_bytes=budget_bytes
    )
    assert filled.n_damaged == 1
    assert used_bytes(tmp_path / "cache") <= budget_bytes


def test_threads_that_prepare_at_once_leave_the_threads_of_blas_as_they_were(
    tmp_path: Path,
) -> None:
    cases = [case_in(tmp_path, f"p{i}", i, edge=5_000) for i in range(10)]
    before = THREADS.info()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda case: prepared([case], tmp_path / "cache"), cases))
    assert THREADS.info() == before
