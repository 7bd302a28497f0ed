"""Runs a site's tasks: imports everything once, then forks one process per message.

Flower starts a new program for every message, which imports torch and monai again and shows the
task's token on its command line. Here the import is paid once and the token never leaves memory.
The process that forks must not touch the accelerator, for CUDA does not survive a fork.
"""

import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from client.service.files import ServiceFiles
from client.service.processes import die_with_parent

CLIENT_TASK = "flwr-clientapp"
FAILED = 1


class ForkingExecutor:
    """Flower's protocol `Executor`: one forked process per task."""

    def __init__(self) -> None:
        """Begin without any task."""
        self.running: set[int] = set()

    def get_eligible_capacity(
        self, supported_task_types: set[Any], **_: object
    ) -> tuple[set[Any], set[str]]:
        """Take the tasks of a site and nothing else."""
        return {kind for kind in supported_task_types if kind == CLIENT_TASK}, set()

    def wait_for_capacity(self, *_: object, **__: object) -> None:
        """Return at once: a site gets one message at a time."""

    def launch(self, spec: Any) -> Any:
        """Fork a process for a task."""
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            _run_task(spec, parent)
        self.running.add(child)
        return import_module("flwr.supercore.superexec.executor").LaunchResult.accepted()

    def reconcile(self) -> None:
        """Collect the processes that have ended."""
        for child in tuple(self.running):
            if os.waitpid(child, os.WNOHANG)[0]:
                self.running.discard(child)

    def close(self) -> None:
        """End the tasks that still run."""
        for child in self.running:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        self.running.clear()


def _run_task(spec: Any, parent: int) -> None:
    """Be the process of one task; never return."""
    code = FAILED
    try:
        die_with_parent(parent)
        from client.service import hooks

        hooks.forget_endings()
        import_module(hooks.TASK).run_clientapp(
            runtime_api_address=spec.runtime_api_address,
            token=spec.token,
            insecure=True,  # on this machine's loopback
            parent_pid=parent,
            runtime_dependency_install=False,
        )
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else FAILED
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # nothing of the parent's is to be done twice


def run(address: str, files: ServiceFiles, parent: int) -> None:
    """Take tasks from the SuperNode at an address of this machine until it ends."""
    from client.service import hooks

    die_with_parent(parent)
    hooks.silence_errors()
    import_module("client.app")
    execution: Any = import_module(hooks.EXECUTION)
    execution.get_executor = lambda *_, **__: ForkingExecutor()
    execution.run_superexec(
        runtime_api_address=address,
        insecure=True,
        superexec_auth_secret=files.secret.read_bytes(),
        parent_pid=parent,
        runtime_dependency_install=False,
    )


if __name__ == "__main__":
    run(sys.argv[1], ServiceFiles(Path(sys.argv[2])), int(sys.argv[3]))
