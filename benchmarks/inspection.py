"""Seconds to inspect data sets, by one worker and by one per core, and how much is inflating.

Usage: python benchmarks/inspection.py FOLDER [--task TASK] [--runs 5]

All figures come from one run: `gzip.decompress` of every file (what nibabel does), our inflating
of the same bytes, the inspection by one worker, by threads (what `consilium inspect` does) and,
for comparison, by processes that are started anew. Median of the runs, files in the system's
cache. The share tells how much of one worker's time is inflating, the floor of any reader.
"""

import argparse
import gzip
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from client.dataset.checks import examine
from client.dataset.guess import task_of
from client.dataset.inflate import inflated
from client.dataset.inspection import inspect
from client.dataset.layouts import describe
from client.parallel import usable_cores


def median_seconds(work: Callable[[], object], runs: int) -> float:
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])  # the first fills the cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    task = task_of(options.folder, options.task)
    description = describe(options.folder, task)
    cases = description.cases
    paths = [path for case in cases for path in (*case.images, *filter(None, [case.label]))]
    contents = [path.read_bytes() for path in paths]
    sizes = [len(gzip.decompress(content)) for content in contents]
    cores = usable_cores()

    def by_processes() -> None:
        context = multiprocessing.get_context("forkserver")
        with ProcessPoolExecutor(cores, mp_context=context) as executor:
            list(executor.map(partial(examine, task=task), cases))

    def by_threads(workers: int) -> None:
        inspect(description, task, workers=workers)

    def inflate_all() -> None:
        for content, size in zip(contents, sizes, strict=True):
            inflated(content, size)

    def gunzip_all() -> None:
        for content in contents:
            gzip.decompress(content)

    found = {
        "gzip.decompress": median_seconds(gunzip_all, options.runs),
        "inflated": median_seconds(inflate_all, options.runs),
        "1 worker": median_seconds(partial(by_threads, 1), options.runs),
        f"{cores} threads": median_seconds(partial(by_threads, cores), options.runs),
        f"{cores} processes": median_seconds(by_processes, options.runs),
    }
    print(f"{len(cases)} cases, {len(paths)} files, {sum(sizes) / 1e6:.0f} MB inflated")
    for name, seconds in found.items():
        print(f"{name:16} {seconds:7.3f} s")
    print(f"inflating, ours over gzip: {found['gzip.decompress'] / found['inflated']:.2f} times")
    print(f"share of inflating in one worker: {found['inflated'] / found['1 worker']:.0%}")


if __name__ == "__main__":
    main()
