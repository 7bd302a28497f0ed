"""Seconds from cache to augmented batch, ours and nnU-Net's, on the same data in the same run.

Usage: python benchmarks/loading.py [FOLDER] [--batches 32] [--peer-python PEER/bin/python]

FOLDER holds BraTS cases; without it, four synthetic brains of their size are made. Both read two
patches of 4 x 128^3 per batch from their own compressed cache, a third forced onto foreground, and
augment them with the numbers of nnunetv2's default trainer, on two cores: ours in threads, the
peer in processes. The peer lives in an environment of its own, because it needs other packages:
python3 -m venv PEER; PEER/bin/pip install torch==2.13.0; PEER/bin/pip install nnunetv2==2.8.1

Mean over the batches of a run, median of the runs. The peer's labels for deep supervision are
left out on both sides.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from client.batches.loader import batches
from client.batches.patches import Recipe
from client.caching.cache import CacheEntry, keep_in_memory
from client.caching.prepare_cases import prepare_dataset
from client.dataset.guess import task_of
from client.dataset.layouts import describe
from common.augmentation import PRESETS, PresetName
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor, sealed
from common.random import step_rng
from common.task import Task
from simulation.phantoms import PhantomSite, PhantomStudy, write_study

PEER_SCRIPT = Path(__file__).with_name("loading_nnunet.py")
PATCH_SIZE = (128, 128, 128)
BATCH_SIZE = 2
WARM_UP = 6  # batches: what was prepared ahead
CONFIGURATION = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(140.0, 172.0, 146.0),
    patch_size=PATCH_SIZE,
    batch_size=BATCH_SIZE,
    strides=((2, 2, 2),),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    features_per_stage=(8, 16),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)


def write_brains(folder: Path) -> None:
    site = PhantomSite(
        name="bench",
        n_cases=4,
        spacing_mm=(1.0, 1.0, 1.0),
        gain=(400.0, 450.0, 500.0, 300.0),
        gamma=(1.0, 1.0, 1.0, 1.0),
        noise_fraction=0.03,
        bias_fraction=0.05,
        tumour_radius_mm=25.0,
        tumour_radius_spread=0.2,
        without_enhancing_fraction=0.0,
    )
    write_study(PhantomStudy(seed=1, field_of_view_mm=(155.0, 190.0, 165.0), sites=(site,)), folder)


def cached(data: Path, task: Task, cache: Path) -> tuple[CacheEntry, ...]:
    plan = Plan(
        schema=1,
        hash="",
        rules="v2",
        planned_for=PlannedFor(n_training_cases=4, n_foreground_classes=3, memory_gb=8.0),
        channels=task.channels,
        transpose=(0, 1, 2),
        normalization=tuple(
            Normalization(channel=name, scheme="masked-z-score") for name in task.channels
        ),
        configurations={"3d_fullres": CONFIGURATION},
    )
    cases = describe(data, task).cases
    return prepare_dataset(cases, task, sealed(plan), CONFIGURATION, cache)


def for_peer(entries: tuple[CacheEntry, ...], folder: Path) -> None:
    """Write what is in the cache as arrays that any program reads."""
    whole = (slice(None),) * 3
    folder.mkdir()
    for number, entry in enumerate(entries):
        np.save(folder / f"{number}.npy", entry.image(whole))
        np.save(folder / f"{number}_labels.npy", entry.labels(whole))


def our_seconds(
    entries: tuple[CacheEntry, ...], preset: PresetName, n_batches: int, workers: int
) -> float:
    masked = (True,) * entries[0].meta.channels
    recipe = Recipe(PATCH_SIZE, BATCH_SIZE, PRESETS[preset], 0.33, masked=masked)
    n_steps, began = n_batches + WARM_UP, 0.0
    rngs = lambda step: step_rng(1, "bench", 0, step, "patches")  # noqa: E731
    for step, _ in enumerate(batches(entries, recipe, 0, n_steps, rngs, workers=workers), 1):
        if step == WARM_UP:
            began = time.perf_counter()
    return (time.perf_counter() - began) / n_batches


def peer_seconds(cases: Path, n_batches: int, workers: int, python: Path) -> float:
    sizes = [str(size) for size in PATCH_SIZE]
    inherited = {name: value for name, value in os.environ.items() if name != "BLOSC_NTHREADS"}
    done = subprocess.run(
        [str(python), str(PEER_SCRIPT), str(cases), str(n_batches), str(workers), *sizes],
        env={**inherited, "OMP_NUM_THREADS": "1"},  # as nnunetv2 itself sets in its workers
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # warnings about folders that are not needed
    )
    return float(done.stdout.decode().split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-python", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        data = given.folder or Path(home) / "data"
        if given.folder is None:
            write_brains(data)
        entries = cached(data, task_of(data, None), Path(home) / "cache")
        for_peer(entries, Path(home) / "arrays")
        torch.set_num_threads(1)  # workers compute alone; without them, so does this
        ours = {}
        for workers in (0, 1, 2):
            runs = range(given.runs)
            seconds = [our_seconds(entries, "nnunet-v2", given.batches, workers) for _ in runs]
            ours[workers] = statistics.median(seconds)
            print(f"ours, {workers} threads beside the consumer: {ours[workers]:.3f} s per batch")
        in_memory = our_seconds(keep_in_memory(entries, 2**40), "nnunet-v2", given.batches, 2)
        print(f"ours, 2 threads, cases decompressed in memory: {in_memory:.3f} s per batch")
        light = our_seconds(entries, "light", given.batches, 2)
        print(f"ours, 2 threads, preset light: {light:.3f} s per batch")
        if given.peer_python:
            peers = [
                peer_seconds(Path(home) / "arrays", given.batches, 2, given.peer_python)
                for _ in range(given.runs)
            ]
            peer = statistics.median(peers)
            print(f"nnunetv2, 2 processes: {peer:.3f} s per batch")
            print(f"nnunetv2 takes {peer / ours[2]:.1f} times as long as ours with 2 threads")


if __name__ == "__main__":
    main()
