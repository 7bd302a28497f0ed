"""The next batches are prepared in the background while the network works on this one.

In threads: nearly all of the work is in compiled code that lets others run, arrays need not be
copied between processes, and nothing must be started anew in every round.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import torch

from client.batches.patches import Batch, Recipe, sample_batch
from client.caching.cache import CacheEntry

AHEAD: Final = 1  # batches waiting besides one in every worker's hands; bounds the memory
MAX_WORKERS: Final = 8  # more than one accelerator's network asks for


def batches(
    entries: Sequence[CacheEntry],
    recipe: Recipe,
    first_step: int,
    n_steps: int,
    rng_of_step: Callable[[int], np.random.Generator],
    *,
    workers: int = 1,
) -> Iterator[Batch]:
    """Yield one augmented batch per step; the same steps give the same batches.

    Args:
        entries: prepared, labelled cases.
        recipe: how a batch is made.
        first_step: number of the first step, for example where a resumed round goes on.
        n_steps: how many batches to yield.
        rng_of_step: gives each step its own generator, so that timing decides nothing.
        workers: batches that are made at the same time; 0 makes each when it is asked for.

    Raises:
        ConsiliumError: whatever preparing a batch raised, when that batch is asked for.
    """
    steps = range(first_step, first_step + n_steps)
    return prepared(
        ((entries, partial(rng_of_step, step)) for step in steps), recipe, workers=workers
    )


def prepared(
    wanted: Iterable[tuple[Sequence[CacheEntry], Callable[[], np.random.Generator]]],
    recipe: Recipe,
    *,
    workers: int = 1,
) -> Generator[Batch, None, None]:
    """Yield one augmented batch for each that is wanted.

    Args:
        wanted: the cases of every batch, and what gives the generator of its patches.
        recipe: how a batch is made.
        workers: as in `batches`.

    Raises:
        ConsiliumError: as in `batches`.
    """
    stopped = threading.Event()

    def batch_of(entries: Sequence[CacheEntry], rng: Callable[[], np.random.Generator]) -> Batch:
        images, labels = sample_batch(entries, recipe, rng(), stopped=stopped.is_set)
        if torch.cuda.is_available():  # pinned memory is copied to the device beside other work
            images, labels = images.pin_memory(), labels.pin_memory()
        return Batch(images.numpy(), labels.numpy())

    if workers == 0:
        for entries, rng in wanted:
            with _one_thread():  # as in every worker: sums would be rounded otherwise
                batch = batch_of(entries, rng)
            yield batch
        return
    waiting: deque[Future[Batch]] = deque()
    executor = _executor(workers)
    try:
        for entries, rng in wanted:
            waiting.append(executor.submit(batch_of, entries, rng))
            if len(waiting) > AHEAD + workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early
        stopped.set()
        executor.shutdown(wait=True, cancel_futures=True)


def idle_cores() -> int:
    """Return how many workers there are cores for, beside the network's own."""
    if not torch.cuda.is_available():
        return 1  # the network uses every core, and needs longer than a batch does
    return max(1, min((os.cpu_count() or 1) - 1, MAX_WORKERS))


@contextmanager
def _one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _executor(workers: int) -> ThreadPoolExecutor:
    """Return threads in which torch computes alone: the other cores are the network's.

    Torch keeps the number of threads per thread, but a new thread starts with the number that was
    set last in any; it is therefore set again here, once every worker has read its own.
    """
    n_threads = torch.get_num_threads()
    begun = threading.Barrier(workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # reads the common number now, or it would do so later
        torch.set_num_threads(1)
        begun.wait()

    executor = ThreadPoolExecutor(workers, "batches", begin)
    for _ in range(workers):
        executor.submit(int)  # starts one thread
    begun.wait()
    torch.set_num_threads(n_threads)
    return executor
