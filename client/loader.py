"""The next batches are prepared in the background while the network works on this one."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np

from client.cache import CacheEntry
from client.patches import Batch, augment, sample_batch
from common.axes import Shape

AHEAD: Final = 2  # batches prepared before they are asked for; bounds the memory


def batches(
    entries: Sequence[CacheEntry],
    patch_size: Shape,
    batch_size: int,
    first_step: int,
    n_steps: int,
    rng_of_step: Callable[[int], np.random.Generator],
    *,
    mirror: bool,
    intensity: bool,
) -> Iterator[Batch]:
    """Yield one augmented batch per step; the same steps give the same batches.

    Args:
        entries: prepared, labelled cases.
        patch_size: voxels along the network's axes.
        batch_size: patches per step.
        first_step: number of the first step, for example where a resumed round goes on.
        n_steps: how many batches to yield.
        rng_of_step: gives each step its own generator, so that timing decides nothing.
        mirror: whether patches are mirrored.
        intensity: whether intensities are varied.

    Raises:
        ConsiliumError: whatever preparing a batch raised, when that batch is asked for.
    """

    def batch_of(step: int) -> Batch:
        rng = rng_of_step(step)
        batch = sample_batch(entries, patch_size, batch_size, rng)
        return augment(batch, rng, mirror=mirror, intensity=intensity)

    waiting: deque[Future[Batch]] = deque()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        for step in range(first_step, first_step + n_steps):
            waiting.append(executor.submit(batch_of, step))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also when the consumer stops early
        executor.shutdown(wait=True, cancel_futures=True)
