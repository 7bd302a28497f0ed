"""Preparing cases, ours and nnunetv2's: the largest difference between arrays, and the seconds.

Usage: python benchmarks/preprocessing.py --peer-python PEER/bin/python [--runs 3]
           [--hippocampus FOLDER] [--brats FOLDER] [--copies 4] [--only arrays|seconds]

FOLDER is Task04_Hippocampus, and patients of BraTS 2013 with FLAIR, T1c and labels; by default both
below the folder in CONSILIUM_SHARED. The peer lives in an environment of its own:
python3 -m venv PEER; PEER/bin/pip install torch==2.13.0; PEER/bin/pip install nnunetv2==2.8.1

Arrays: both prepare the same voxels by the same plan, real cases at their own spacing and at
another, synthetic ones with thick slices, as CT and in 2d. Seconds: whole data sets from NIfTI on
disk to prepared cases on disk, two processes each, which both start anew in every run; median of
the runs, files in the system's cache. The share of decompression is that of one process of ours.

The BraTS 2013 files are not zero outside the brain; copies are made that are, as BraTS has them,
several of each patient, a constant apart, so that the start of processes does not decide.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

# Two processes on two cores: a thread of BLAS beside them would only be in the way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from preprocessing_cases import PEER_DATASET, Trial, peer_plan, plan_of, synthetic_trials

from client.caching.prepare_cases import prepare_dataset
from client.dataset.inflate import inflated
from client.dataset.layouts import describe
from client.dataset.nifti import read_channels, read_labels, read_scan, write_image
from client.preparation.preprocess import prepare
from common.case import Case
from common.planning.plan import Plan
from common.task import Task

PEER_SCRIPT = Path(__file__).with_name("preprocessing_nnunet.py")
N_PROCESSES = 2


def real_trials(folder: Path, task: Task, scheme: str, count: int) -> Iterator[Trial]:
    schemes = (scheme,) * len(task.channels)
    for case in describe(folder, task).cases[:count]:
        scan = read_scan(case, len(task.channels))
        labels, _ = read_labels(case.label, task.label_mapping)
        for spacing_mm in ((1.0, 1.0, 1.0), (1.3, 0.9, 1.1)):
            plan = plan_of(spacing_mm, *schemes)
            yield Trial(f"{task.name} {spacing_mm}", scan.image, labels, scan.spacing_mm, plan)


def print_differences(trials: list[Trial], python: Path) -> None:
    """Prepare every case both ways and print how far the arrays are apart."""
    with tempfile.TemporaryDirectory() as home:
        for number, trial in enumerate(trials):
            np.savez(
                Path(home) / f"{number}.case.npz",
                image=trial.image,
                labels=trial.labels,
                spacing_mm=trial.spacing_mm,
            )
            plan = json.dumps(peer_plan(trial.plan))
            (Path(home) / f"{number}.plan.json").write_text(plan)
        peer(python, home, "arrays", home)
        for number, trial in enumerate(trials):
            theirs = np.load(Path(home) / f"{number}.peer.npz")
            prepared = prepare(
                trial.image, trial.spacing_mm, trial.labels, trial.plan, trial.configuration
            )
            apart = np.abs(prepared.image - theirs["image"]).max()
            other = np.count_nonzero(prepared.labels != np.maximum(theirs["labels"], 0))
            print(
                f"{trial.name}: {prepared.image.shape}, intensities differ by up to {apart:.2g}, "
                f"{other} labels differ"
            )


def print_seconds(folder: Path, task: Task, scheme: str, runs: int, python: Path) -> None:
    """Prepare a whole data set both ways and print the ratio of the times."""
    cases = describe(folder, task).cases
    plan = plan_of((1.0, 1.0, 1.0), *(scheme,) * len(task.channels))
    ours = statistics.median(our_seconds(cases, task, plan) for _ in range(runs + 1))
    theirs = statistics.median(peer_seconds(cases, task, plan, runs, python))
    print(
        f"{task.name}, {len(cases)} cases, {N_PROCESSES} processes: ours {ours:.2f} s, "
        f"nnunetv2 {theirs:.2f} s, {theirs / ours:.1f} times the throughput"
    )
    reading, inflating, everything = stages(cases, task, plan)
    print(
        f"  in this process alone: {everything:.2f} s, of which reading {reading:.2f} s, "
        f"of which decompressing {inflating:.2f} s ({inflating / everything:.0%} of all)"
    )


def our_seconds(
    cases: tuple[Case, ...], task: Task, plan: Plan, processes: int = N_PROCESSES
) -> float:
    configuration = plan.configurations["3d_fullres"]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        prepare_dataset(cases, task, plan, configuration, Path(folder), processes=processes)
        return time.perf_counter() - began


def stages(cases: tuple[Case, ...], task: Task, plan: Plan) -> tuple[float, float, float]:
    """Return seconds for reading, for the decompression in it, and for everything."""
    began = time.perf_counter()
    for case in cases:
        for path in (*case.images, case.label):
            content = path.read_bytes()
            inflated(content, int.from_bytes(content[-4:], "little"))  # gzip ends with its size
    inflating = time.perf_counter() - began
    began = time.perf_counter()
    for case in cases:
        read_scan(case, len(task.channels))
        read_labels(case.label, task.label_mapping)
    reading = time.perf_counter() - began
    return reading, inflating, our_seconds(cases, task, plan, processes=1)


def peer_seconds(
    cases: tuple[Case, ...], task: Task, plan: Plan, runs: int, python: Path
) -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        raw, preprocessed = (Path(home) / name / PEER_DATASET for name in ("raw", "preprocessed"))
        (Path(home) / "results").mkdir()
        preprocessed.mkdir(parents=True)
        in_nnunet_layout(cases, task, raw)
        (preprocessed / "dataset.json").write_bytes((raw / "dataset.json").read_bytes())
        (preprocessed / "nnUNetPlans.json").write_text(json.dumps(peer_plan(plan)))
        printed = peer(python, home, "seconds", PEER_DATASET, "3d_fullres", str(runs))
    return [float(line) for line in printed.splitlines() if line[:1].isdigit()]


def peer(python: Path, home: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(python), str(PEER_SCRIPT), *arguments],
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
    return done.stdout.decode()


def in_nnunet_layout(cases: tuple[Case, ...], task: Task, raw: Path) -> None:
    """Link the images under the names that nnU-Net expects."""
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for case in cases:
        for number, image in enumerate(case.images):
            name = f"{case.name}_{number:04}.nii.gz"
            (raw / "imagesTr" / name).symlink_to(image.resolve())
        (raw / "labelsTr" / f"{case.name}.nii.gz").symlink_to(case.label.resolve())
    dataset = {
        "channel_names": {str(number): name for number, name in enumerate(task.channels)},
        "labels": task.labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))


def task_named(name: str, channels: tuple[str, ...], n_labels: int) -> Task:
    labels = {"background": 0, **{f"label {value}": value for value in range(1, n_labels + 1)}}
    regions = {"all": tuple(range(1, n_labels + 1))}
    return Task(name=name, version=1, channels=channels, labels=labels, regions=regions)


def stripped_brats(folder: Path, task: Task, home: Path, copies: int) -> Path:
    """Write the patients' FLAIR and T1c, zero outside the brain, where both programs find them."""
    cases = []
    for patient, copy in product(sorted(folder.iterdir()), range(copies)):
        brain, _ = read_labels(patient / "brainmask.nii.gz", None)
        tumour, _ = read_labels(patient / "OTMultiClass.nii.gz", None)
        inside = (brain > 0) | (tumour > 0)  # a label outside the head would count as head there
        paths = []
        for name in ("Flair", "T1c"):
            image, grid = read_channels(patient / f"{name}_subtrMeanDivStd.nii.gz")
            paths.append(home / f"{patient.name}-{copy}-{name}.nii.gz")
            write_image(paths[-1], (image[0] + np.float32(copy)) * inside, grid)
        label = patient / "OTMultiClass.nii.gz"
        cases.append(Case(name=f"{patient.name}-{copy}", images=tuple(paths), label=label))
    in_nnunet_layout(tuple(cases), task, home / PEER_DATASET)
    return home / PEER_DATASET


def main() -> None:
    shared = Path(os.environ.get("CONSILIUM_SHARED", ".")) / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--hippocampus", type=Path, default=shared / "Task04_Hippocampus")
    parser.add_argument("--brats", type=Path, default=shared / "brats2013")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--copies", type=int, default=4, help="of each BraTS patient")
    parser.add_argument("--only", choices=("arrays", "seconds"))
    given = parser.parse_args()
    hippocampus = task_named("hippocampus", ("MRI",), 2)
    brats = task_named("brats-2013", ("FLAIR", "T1c"), 4)
    with tempfile.TemporaryDirectory() as home:
        linked = stripped_brats(given.brats, brats, Path(home), given.copies)
        sets = [(given.hippocampus, hippocampus, "z-score"), (linked, brats, "masked-z-score")]
        if given.only != "seconds":
            trials = list(synthetic_trials())
            for (folder, task, scheme), count in zip(sets, (10, 1), strict=True):
                trials += real_trials(folder, task, scheme, count)
            print_differences(trials, given.peer_python)
        if given.only != "arrays":
            for folder, task, scheme in sets:
                print_seconds(folder, task, scheme, given.runs, given.peer_python)


if __name__ == "__main__":
    main()
