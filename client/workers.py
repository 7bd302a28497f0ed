"""Work shared among processes that stop at once and never outlive the one that started them.

Processes rather than threads, measured: a killed process is an error and not the end of the
program, and Ctrl-C need not wait for a case. On two cores both take the same time per case, and
a process takes 0.8 s to start.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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

    When the caller closes the generator early, for example on Ctrl-C, all processes end at once.

    Args:
        work: a function of a module; each process imports that module, and the program's main
            one, which must therefore do nothing when it is imported.
        items: what it is called with; small, because each is sent to a process.
        processes: at least 1.

    Raises:
        ConfigError: when a process was killed, mostly because the memory was used up.
        Exception: the first one that `work` raises.
    """
    with _processes(min(processes, len(items))) as executor:
        with _interrupts_held_back():  # the processes inherit this and leave Ctrl-C to us
            futures = [executor.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise ConfigError(
                f"one of {processes} processes was killed, probably for lack of memory; what was "
                "finished is kept; expected fewer processes, or a machine with more memory"
            ) from None


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
