"""One function over many items at once, with the results in the order of the items.

Threads, not processes: reading images is inflating, copying and comparing, all of which let other
threads run. On two cores both took the same time for BraTS, and processes 0.2 s to start; they
would also be refused inside a daemon and need a main module that can be imported again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """Return how many cores this process may use; a container or a scheduler may allow few."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    function: Callable[[T], R], items: Sequence[T], workers: int | None = None
) -> Iterator[R]:
    """Yield the result for each item, in the order of the items.

    Args:
        function: safe to be called by several threads; each handles one item at a time.
        items: as many as there are.
        workers: how many items are handled at once; None means one per usable core.

    Raises:
        Exception: the first one that `function` raises; what has not begun is then left out, as
            it is when the consumer stops or is interrupted.
    """
    n_workers = min(workers or usable_cores(), len(items))
    if n_workers <= 1:
        yield from map(function, items)
        return
    executor = ThreadPoolExecutor(n_workers, thread_name_prefix="cases")
    try:
        yield from executor.map(function, items)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
