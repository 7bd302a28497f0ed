"""Processes that never outlive the one that started them, however that one ends.

They end at once and by the kernel's hand, without a chance to go on: nobody at the hospital would
see a training that outlived its site, and what it had to keep is on the disk already. A
coordinator's programs are asked to end instead (`server.coordinator.lifeline`), for they have a
database to close and programs of their own to end.
"""

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1  # linux/prctl.h
WATCH_S = 0.5


def die_with_parent(parent: int) -> None:
    """End this process at once when the one that started it ends, also by SIGKILL.

    Linux does this for us; elsewhere a thread watches.

    Args:
        parent: number of the process that started this one, as that one knew it.
    """
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)
