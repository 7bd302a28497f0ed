"""Flower's executor, which starts experiments: ``python -m server.coordinator.executor KIT``.

A process of its own, so that the SuperLink can end and come back without ending the experiment.
"""

import os
import sys
from pathlib import Path

from server.coordinator.kit_folder import KitFolder, flower_environment, local_address
from server.coordinator.lifeline import LIFELINE, end_with_supervisor
from server.node_names import NODES_VARIABLE


def executor_arguments(folder: KitFolder) -> list[str]:
    """Return the command line of Flower's executor for a kit."""
    return [
        *("--runtime-api-address", local_address(folder.read())),
        *("--root-certificates", str(folder.ca)),
        *("--superexec-auth-secret-file", str(folder.secret)),
    ]


def main(path: str) -> None:
    """Execute until a signal ends the process."""
    folder = KitFolder(Path(path).resolve())
    os.environ.update(flower_environment(folder))
    os.environ[NODES_VARIABLE] = str(folder.nodes)
    programs = str(Path(sys.executable).parent)  # Flower starts its own by name
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    sys.argv = ["flower-superexec", *executor_arguments(folder)]
    from flwr.supercore.cli.flower_superexec import flower_superexec

    flower_superexec()


if __name__ == "__main__":
    if LIFELINE in sys.argv:
        end_with_supervisor()
    main(sys.argv[1])
