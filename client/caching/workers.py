"""Work shared among processes that stop at once and never outlive the one that started them.

Processes rather than threads, measured: a killed process is an error and not the end of the
program, and Ctrl-C need not wait for a case. On two cores both take the same time per case, and
a process takes 0.8 s to start, during which this one works already.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from threading import Thread
from typing import TypeVar

from common.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")


def by_processes(
    work: Callable[[T], R], items: Sequence[T], processes: int
) -> Generator[R, None, None]:
    """Yield the result for every item, in the order in which they are ready.

    This process takes its share, so that no core waits while the others start. When the caller
    closes the generator early, for example on Ctrl-C, all processes end at once.

    Args:
        work: a function of a module; each process imports that module, and the program's main
            one, which must therefore do nothing when it is imported.
        items: what it is called with; small, because each is sent to a process.
        processes: at least 1, this one included.

    Raises:
        ConfigError: when a process was killed, mostly because the memory was used up.
        Exception: the first one that `work` raises.
    """
    n_others = min(processes, len(items)) - 1
    if n_others < 1:
        yield from map(work, items)
        return
    with _processes(n_others) as executor:
        try:
            yield from _sharing(work, deque(items), executor, n_ahead=2 * n_others)
        except BrokenProcessPool:
            raise ConfigError(
                f"one of {processes} processes was killed, probably for lack of memory; what was "
                "finished is kept; expected fewer processes, or a machine with more memory"
            ) from None


def _sharing(
    work: Callable[[T], R], left: deque[T], executor: ProcessPoolExecutor, n_ahead: int
) -> Iterator[R]:
    """Let the others have items from the start, so many at once, and take ours from the end."""
    theirs = set[Future[R]]()
    while left or theirs:
        with _interrupts_held_back():  # the processes inherit this and leave Ctrl-C to us
            while left and len(theirs) < n_ahead:
                theirs.add(executor.submit(work, left.popleft()))
        if left:
            yield work(left.pop())
        ready, theirs = wait(theirs, timeout=0 if left else None, return_when=FIRST_COMPLETED)
        for future in ready:
            yield future.result()


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool; a pipe from here to each process closes when this process stops or dies."""
    context = multiprocessing.get_context("spawn")  # a forked one may inherit locks of threads
    far_end, lifeline = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(count, context, initializer=_live_on, initargs=(far_end,))
    try:
        yield executor
    except BaseException:
        lifeline.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        lifeline.close()
        far_end.close()


def _live_on(far_end: Connection) -> None:
    """Watch the pipe in the background: nothing is ever sent, it only closes."""

    def watch() -> None:
        far_end.poll(None)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
