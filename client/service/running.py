"""One site at a time: who holds the lock runs, and everybody else can find and stop it."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from client.service.files import ServiceFiles
from common.errors import ConfigError
from common.files import locked, make_folder

STOP_TIMEOUT_S = 60.0
POLL_S = 0.1


@contextmanager
def only_one(files: ServiceFiles) -> Iterator[None]:
    """Hold the site's lock, which names this process.

    Raises:
        ConfigError: when the site runs already.
    """
    make_folder(files.folder)
    with files.lock.open("a+") as lock:
        if not locked(lock):
            running = running_process(files)
            raise ConfigError(
                f"this site runs already (process {running}); stop it first: consilium site stop"
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def running_process(files: ServiceFiles) -> int | None:
    """Return the number of the process that runs this site; None when none does."""
    try:
        with files.lock.open("r+") as lock:
            if locked(lock):
                return None
            text = lock.read()
            return int(text) if text.isdecimal() else 0  # 0 while it is just starting
    except FileNotFoundError:
        return None


def stop(files: ServiceFiles, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """End the site's process and wait until it and all it started are gone.

    Returns:
        Whether it ran.

    Raises:
        ConfigError: when it does not end in time.
    """
    process, told = running_process(files), False
    if process is None:
        return False
    deadline = time.monotonic() + timeout_s
    while process is not None:
        if time.monotonic() > deadline:
            raise ConfigError(f"process {process}: still runs after {timeout_s:.0f} s; kill it")
        if process and not told:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            told = True
        time.sleep(POLL_S)
        process = running_process(files)
    return True
