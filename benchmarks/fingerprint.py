"""Seconds for the fingerprint of a data set, ours and nnU-Net's, on the same data in the same run.

Usage: python benchmarks/fingerprint.py [FOLDER] [--runs 5] [--peer-python PEER/bin/python]

FOLDER is a Medical Segmentation Decathlon task; by default Task04_Hippocampus below the folder in
CONSILIUM_SHARED. The peer lives in an environment of its own, because it needs other packages:
python3 -m venv PEER; PEER/bin/pip install torch==2.13.0; PEER/bin/pip install nnunetv2==2.8.1

Ours runs in one process. The peer gets two worker processes, which it starts anew in every run,
and always reads the labels and samples 10^8 intensities; ours reads labels, and every tenth
intensity inside them, for CT only. The second figure of ours declares the same images as CT, so
that both open the same files. Imports here, and the peer's layout of the folder, are not in the
time. Median of the runs, files in the system's cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from client.dataset.guess import task_of
from client.dataset.layouts import describe
from client.fingerprint.measure import measure
from common.task import Task

PEER_SCRIPT = Path(__file__).with_name("fingerprint_nnunet.py")
PEER_DATASET = "Dataset004_Peer"


def our_seconds(folder: Path, task: Task, runs: int) -> list[float]:
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        measure(describe(folder, task), task)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]  # the first fills the cache


def peer_seconds(folder: Path, runs: int, python: Path) -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        for name in ("raw", "preprocessed", "results"):
            (Path(home) / name).mkdir()
        in_nnunet_layout(folder, Path(home) / "raw" / PEER_DATASET)
        done = subprocess.run(
            [str(python), str(PEER_SCRIPT), PEER_DATASET, str(runs)],
            env={
                **os.environ,
                "nnUNet_raw": f"{home}/raw",
                "nnUNet_preprocessed": f"{home}/preprocessed",
                "nnUNet_results": f"{home}/results",
            },
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # progress bars
        )
    return [float(line) for line in done.stdout.decode().splitlines() if line[:1].isdigit()]


def in_nnunet_layout(folder: Path, raw: Path) -> None:
    """Link the images under the names that nnU-Net expects."""
    task = task_of(folder, None)
    cases = describe(folder, task).cases
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in cases:
        (raw / "imagesTr" / f"{case.name}_0000.nii.gz").symlink_to(case.images[0].resolve())
        if case.label is not None:
            (raw / "labelsTr" / f"{case.name}.nii.gz").symlink_to(case.label.resolve())
    dataset = {
        "channel_names": {"0": task.channels[0]},
        "labels": task.labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))


def default_folder() -> Path | None:
    shared = os.environ.get("CONSILIUM_SHARED")
    return Path(shared) / "data" / "Task04_Hippocampus" if shared else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=default_folder())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-python", type=Path)
    given = parser.parse_args()
    if given.folder is None:
        parser.error("expected a folder, or CONSILIUM_SHARED in the environment")
    task = task_of(given.folder, None)
    if len(task.channels) != 1:
        parser.error(f"{given.folder}: expected a task with one modality, found {task.channels}")
    ours = statistics.median(our_seconds(given.folder, task, given.runs))
    with_labels = replace(task, channels=("CT",))
    as_ct = statistics.median(our_seconds(given.folder, with_labels, given.runs))
    print(f"ours {ours:.3f} s, as CT {as_ct:.3f} s, 1 process")
    if given.peer_python:
        peer = statistics.median(peer_seconds(given.folder, given.runs, given.peer_python))
        print(f"nnunetv2 {peer:.3f} s, 2 processes")
        print(f"ours takes {ours / peer:.3f} of the peer's time, as CT {as_ct / peer:.3f}")


if __name__ == "__main__":
    main()
