"""Batches come in order, ahead of time, and the background thread never outlives its use."""

import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from client.batches.loader import batches
from client.batches.patches import Batch, Recipe, sample_batch
from client.caching.cache import CacheEntry
from client.caching.prepare_cases import prepare_dataset
from client.dataset.nifti import grid_of, write_image, write_labels
from common.augmentation import PRESETS, Change, Preset
from common.case import Case
from common.errors import DataError
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor, sealed
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


def loader(
    entries: tuple[CacheEntry, ...],
    first: int,
    n: int,
    rngs: Callable[[int], np.random.Generator] = rng_of_step,
    workers: int = 1,
) -> Generator[Batch]:
    recipe = Recipe((4, 4, 4), 2, PRESETS["nnunet"], 0.33)
    made = batches(entries, recipe, first, n, rngs, workers=workers)
    assert isinstance(made, Generator)
    return made


def bytes_of(made: Iterable[Batch]) -> list[tuple[bytes, bytes]]:
    return [(batch.images.tobytes(), batch.labels.tobytes()) for batch in made]


def background_threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_resumed_round_goes_on_with_the_same_batches(entries: tuple[CacheEntry, ...]) -> None:
    whole, resumed = bytes_of(loader(entries, 0, 7)), bytes_of(loader(entries, 3, 4))
    assert len(whole) == 7
    assert whole[3:] == resumed
    assert len(set(whole)) == 7
    assert background_threads() == 0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_batches_are_the_same_whoever_makes_them(
    entries: tuple[CacheEntry, ...], workers: int
) -> None:
    alone = bytes_of(loader(entries, 0, 12, workers=0))
    assert bytes_of(loader(entries, 0, 12, workers=workers)) == alone


def test_the_order_is_kept_when_a_later_batch_is_ready_first(
    entries: tuple[CacheEntry, ...],
) -> None:
    def uneven(step: int) -> np.random.Generator:
        time.sleep(0.03 * (step % 2 == 0))
        return rng_of_step(step)

    in_order = bytes_of(loader(entries, 0, 6, workers=0))
    assert bytes_of(loader(entries, 0, 6, uneven, workers=2)) == in_order


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_no_steps_give_no_batches(entries: tuple[CacheEntry, ...], workers: int) -> None:
    assert list(loader(entries, 0, 0, workers=workers)) == []


@pytest.mark.parametrize(("workers", "ahead"), [(0, 0), (1, 2), (2, 3)])
def test_a_few_batches_are_prepared_ahead_and_no_more(
    entries: tuple[CacheEntry, ...], workers: int, ahead: int
) -> None:
    started: list[int] = []

    def watched(step: int) -> np.random.Generator:
        started.append(step)
        return rng_of_step(step)

    made = loader(entries, 0, 100, watched, workers)
    next(made)
    until(lambda: len(started) > ahead)
    time.sleep(0.05)
    assert sorted(started) == list(range(ahead + 1))
    made.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_threads_end_when_the_consumer_stops_early(
    entries: tuple[CacheEntry, ...], workers: int
) -> None:
    made = loader(entries, 0, 100, workers=workers)
    next(made)
    assert background_threads() == workers
    made.close()
    assert background_threads() == 0


def test_a_batch_that_nobody_waits_for_is_given_up(entries: tuple[CacheEntry, ...]) -> None:
    stopped = iter([False, True])
    with pytest.raises(CancelledError):
        sample_batch(
            entries,
            Recipe((4, 4, 4), 3, PRESETS["none"], 0.33),
            rng_of_step(0),
            stopped=lambda: next(stopped),
        )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_fault_in_the_background_reaches_the_consumer(
    entries: tuple[CacheEntry, ...], workers: int
) -> None:
    def faulty(step: int) -> np.random.Generator:
        if step == 2:
            raise DataError("case 2: damaged")
        return rng_of_step(step)

    made = loader(entries, 0, 5, faulty, workers)
    next(made)
    next(made)
    with pytest.raises(DataError, match="case 2: damaged"):
        next(made)
    assert background_threads() == 0


def test_workers_compute_with_one_thread_and_leave_the_networks_threads_alone(
    entries: tuple[CacheEntry, ...],
) -> None:
    seen: list[int] = []

    def watched(step: int) -> np.random.Generator:
        seen.append(torch.get_num_threads())
        return rng_of_step(step)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for _ in loader(entries, 0, 4, watched, workers=2):
            assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1] * 4


@pytest.fixture
def four_threads() -> Generator[None]:
    """As on a machine with four cores: large sums are then rounded otherwise than with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_a_batch_does_not_depend_on_the_networks_threads(entries: tuple[CacheEntry, ...]) -> None:
    often = Preset(contrast=Change(1, 0.5, 1.5))
    recipe = Recipe((64, 64, 64), 4, often, 0.33)
    alone = bytes_of(batches(entries, recipe, 0, 2, rng_of_step, workers=0))
    assert torch.get_num_threads() == 4
    assert bytes_of(batches(entries, recipe, 0, 2, rng_of_step, workers=1)) == alone
