"""Progress on a terminal as a bar, elsewhere as plain lines; always on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

N_LINES = 10  # about as many plain lines per task


@contextmanager
def progress(what: str) -> Iterator[Callable[[float, int], None]]:
    """Yield a function that is told (done, all); shows a bar or, every tenth, a line.

    Of what is done, a fraction moves the bar only.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: _line(what, done, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def say(text: str) -> None:
    """Write one line about what is going on."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _line(what: str, done: float, total: int) -> None:
    step = max(1, total // N_LINES)
    if done == total or done % step == 0:
        say(f"{what}: {done} of {total}")
