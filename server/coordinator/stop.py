"""Ending a coordinator, or one of its runs, from another terminal."""

import os
import signal
import time

from common.errors import ConfigError, FederationError
from server.coordinator.kit_folder import KitFolder
from server.coordinator.supervise import running
from server.coordinator.wanted_runs import change, named

END_S = 90.0  # the supervisor gives each of its programs 20 s


def stop_coordinator(folder: KitFolder) -> None:
    """End the supervisor and all that it keeps going; runs go on with the next start.

    Raises:
        ConfigError: when it is not running.
        FederationError: when it does not end in time.
    """
    supervisor = running(folder)
    if supervisor is None:
        raise ConfigError(f"{folder.path}: its coordinator is not running")
    os.kill(supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + END_S
    while running(folder) is not None:
        if time.monotonic() > deadline:
            raise FederationError(f"process {supervisor.pid}: did not end within {END_S:.0f} s")
        time.sleep(0.2)


def stop_run(folder: KitFolder, name: str) -> None:
    """Want a run no more; its folder stays, and `run` with the same --out goes on with it.

    Raises:
        ConfigError: when there is no such run.
    """
    run = named(folder.runs, name)
    change(folder.runs, run.folder, stopped=True)
