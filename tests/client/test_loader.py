"""Batches come in order, ahead of time, and the background thread never outlives its use."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from client.cache import CacheEntry, prepare_dataset
from client.loader import batches
from client.nifti import grid_of, write_image, write_labels
from common.case import Case
from common.errors import DataError
from common.plan import Configuration, Normalization, Plan, PlannedFor, sealed
from common.random import step_rng
from common.task import Task


@pytest.fixture
def entries(tmp_path: Path) -> tuple[CacheEntry, ...]:
    """Two small cases in a real cache."""
    grid = grid_of((1.0, 1.0, 1.0), (6, 6, 6))
    cases = []
    for number in range(2):
        image, label = tmp_path / f"i{number}.nii.gz", tmp_path / f"l{number}.nii.gz"
        voxels = np.random.default_rng(number).standard_normal((6, 6, 6)).astype(np.float32)
        write_image(image, voxels, grid)
        write_labels(label, (voxels > 0).astype(np.uint8), grid)
        cases.append(Case(str(number), (image,), label))
    task = Task(
        name="toy",
        version=1,
        channels=("A",),
        labels={"background": 0, "one": 1},
        regions={"one": (1,)},
    )
    configuration = Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(6.0, 6.0, 6.0),
        patch_size=(4, 4, 4),
        batch_size=2,
        strides=(),
        kernel_sizes=((3, 3, 3),),
        features_per_stage=(8,),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )
    plan = Plan(
        schema=1,
        hash="",
        rules="paper",
        planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
        channels=("A",),
        transpose=(0, 1, 2),
        normalization=(Normalization(channel="A", scheme="z-score"),),
        configurations={"3d_fullres": configuration},
    )
    return prepare_dataset(cases, task, sealed(plan), configuration, tmp_path / "cache")


def rng_of_step(step: int) -> np.random.Generator:
    return step_rng(1, "a", 0, step, "patches")


def images(entries: tuple[CacheEntry, ...], first: int, n: int) -> list[np.ndarray]:
    loader = batches(entries, (4, 4, 4), 2, first, n, rng_of_step, mirror=True, intensity=True)
    return [batch.images for batch in loader]


def background_threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def test_a_resumed_round_goes_on_with_the_same_batches(entries: tuple[CacheEntry, ...]) -> None:
    whole, resumed = images(entries, 0, 7), images(entries, 3, 4)
    assert len(whole) == 7
    np.testing.assert_array_equal(whole[3:], resumed)
    assert len({batch.tobytes() for batch in whole}) == 7
    assert background_threads() == 0


def test_no_steps_give_no_batches(entries: tuple[CacheEntry, ...]) -> None:
    assert images(entries, 0, 0) == []


def test_two_batches_are_prepared_ahead_and_no_more(entries: tuple[CacheEntry, ...]) -> None:
    started: list[int] = []

    def watched(step: int) -> np.random.Generator:
        started.append(step)
        return rng_of_step(step)

    loader = batches(entries, (4, 4, 4), 2, 0, 100, watched, mirror=False, intensity=False)
    next(loader)
    deadline = time.monotonic() + 5
    while len(started) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert started == [0, 1, 2]
    loader.close()


def test_the_thread_ends_when_the_consumer_stops_early(entries: tuple[CacheEntry, ...]) -> None:
    loader = batches(entries, (4, 4, 4), 2, 0, 100, rng_of_step, mirror=False, intensity=False)
    next(loader)
    assert background_threads() == 1
    loader.close()
    assert background_threads() == 0


def test_a_fault_in_the_background_reaches_the_consumer(entries: tuple[CacheEntry, ...]) -> None:
    def faulty(step: int) -> np.random.Generator:
        if step == 2:
            raise DataError("case 2: damaged")
        return rng_of_step(step)

    loader = batches(entries, (4, 4, 4), 2, 0, 5, faulty, mirror=False, intensity=False)
    next(loader)
    next(loader)
    with pytest.raises(DataError, match="case 2: damaged"):
        next(loader)
    assert background_threads() == 0
