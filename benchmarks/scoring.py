"""Seconds to score pairs of label files of 240x240x155 from disk, by the number of workers.

Usage: python benchmarks/scoring.py [--cases 100] [--workers 1 2] [--further]

The cases are those of `metrics.py`, in turn, written as nii.gz. With --further also normalised
surface Dice and lesion-wise scores. Beside the seconds stands how many cores were busy on average.
"""

import argparse
import tempfile
import time
from pathlib import Path

from metrics import SPACING_MM, TASK, cases

from client.dataset.nifti import grid_of, write_labels
from client.scoring.score import Scoring, score_folders
from common.evaluation.further_metrics import BASIC_ONLY, wanted_metrics


def write_pairs(folder: Path, n_cases: int) -> None:
    pairs = list(cases().values())
    for number in range(n_cases):
        for name, labels in zip(("reference", "prediction"), pairs[number % 5], strict=True):
            path = folder / name / f"case-{number:03}.nii.gz"
            write_labels(path, labels, grid_of(SPACING_MM, labels.shape))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--further", action="store_true")
    asked = parser.parse_args()
    further = wanted_metrics(["nsd"], 1.0, "glioma") if asked.further else BASIC_ONLY
    scoring = Scoring(TASK, "pooled", further=further)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, asked.cases)
        for workers in asked.workers:
            began, cpu_began = time.perf_counter(), time.process_time()
            score_folders(folder / "reference", folder / "prediction", scoring, workers=workers)
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
            per_case = f"{seconds / asked.cases:.3f} s per case"
            print(f"{workers} workers: {seconds:.1f} s, {per_case}, {cpu_s / seconds:.2f} cores")


if __name__ == "__main__":
    main()
