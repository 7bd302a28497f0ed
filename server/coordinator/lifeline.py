"""A child ends when its supervisor does, however that ended: the pipe between them closes.

Programs of a coordinator are asked to end, and have time for it: SuperLink closes its database, the
executor ends the runs' programs. A site's processes end at once and by the kernel's hand instead
(`client.service.processes`): they are forked without a pipe of their own, and a training that
outlived its site would go on unseen.
"""

import os
import signal
import threading
import time

LIFELINE = "--until-stdin-ends"
GRACE_S = 15.0  # to end by itself before it is ended


def end_with_supervisor() -> None:
    """End this process when its standard input does; returns at once."""
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    while os.read(0, 4096):  # not through sys.stdin, whose lock would disturb the end of Python
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)
