"""Seconds for Dice and HD95 of three regions on 240x240x155, ours and others', in the same run.

Usage: python benchmarks/metrics.py [--runs 5] [--peer-python PEER] [--slow-peers]

One thread, labels in memory. Five cases of different difficulty: identical, dilated, eroded, far
false positives, half of the tumour missing; for each the median of the runs, then the median of the
cases. MONAI is measured here; with PEER, the Python of another environment (`pip install
surface-distance medpy panoptica`), also surface-distance and, which takes minutes, MedPy and
panoptica (`benchmarks/metrics_peers.py`). Peak memory is that of arrays, as Python traces them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from common.axes import LabelMap
from common.evaluation.metrics import score_case
from common.task import load_task, regions_of

TASK = load_task("brats-2021")
SHAPE = (155, 240, 240)
SPACING_MM = (1.0, 1.0, 1.0)
Pair = tuple[LabelMap, LabelMap]


def tumour(centre: tuple[int, int, int], scale: float = 1.0) -> LabelMap:
    """Return nested ellipsoids with wavy surfaces: oedema around core around enhancing tumour."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = np.sqrt(
        ((z - centre[0]) / 0.8) ** 2 + (y - centre[1]) ** 2 + ((x - centre[2]) / 1.2) ** 2
    ) + 2 * np.sin(x / 5) * np.cos(y / 4)
    labels = np.zeros(SHAPE, np.uint8)
    for label, radius in ((2, 45), (1, 28), (4, 18)):
        labels[distance < radius * scale] = label
    return labels


def cases() -> dict[str, Pair]:
    """Return (reference, prediction) by name."""
    reference = tumour((77, 120, 120))
    far = reference.copy()
    far[10:16, 20:40, 20:40] = 4  # voxels far from every tumour
    half = reference.copy()
    half[:, :, :120] = 0
    return {
        "identical": (reference, reference.copy()),
        "dilated": (reference, ndimage.grey_dilation(reference, (5, 5, 5))),
        "eroded": (reference, ndimage.grey_erosion(reference, (5, 5, 5))),
        "far false positives": (reference, far),
        "half missing": (reference, half),
    }


def ours(reference: LabelMap, prediction: LabelMap) -> list[float]:
    scores = score_case(reference, prediction, SPACING_MM, TASK, hd95="max")
    return [score.hd95 for score in scores.values()]


def monai(reference: LabelMap, prediction: LabelMap) -> list[float]:
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance

    torch.set_num_threads(1)
    masks = [torch.from_numpy(regions_of(labels, TASK))[None] for labels in (prediction, reference)]
    compute_dice(*masks)
    found = compute_hausdorff_distance(*masks, percentile=95, include_background=True)
    return [float(value) for value in found[0]]


def median_s(score: Callable[[LabelMap, LabelMap], object], pair: Pair, runs: int) -> float:
    score(*pair)
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        score(*pair)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def peers(python: str, pairs: dict[str, Pair], runs: int, *, slow: bool) -> dict[str, list[float]]:
    """Return seconds per case of every peer of another environment."""
    script = Path(__file__).with_name("metrics_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        for number, pair in enumerate(pairs.values()):
            np.savez(Path(folder) / f"{number}.npz", *[regions_of(one, TASK) for one in pair])
        names = ["surface-distance", *(["medpy", "panoptica"] if slow else [])]
        command = [python, str(script), folder, str(runs), *names]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, list[float]] = json.loads(printed.splitlines()[-1])
    return found


def peak_memory_mb() -> float:
    """Return the most that scoring takes besides its input, in a fresh process."""
    command = [sys.executable, __file__, "--memory"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed)


def print_memory() -> None:
    pairs = cases()
    tracemalloc.start()
    for pair in pairs.values():
        ours(*pair)
    sys.stdout.write(str(tracemalloc.get_traced_memory()[1] / 1e6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-python")
    parser.add_argument("--slow-peers", action="store_true")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        print_memory()
        return
    pairs = cases()
    seconds = {"ours": [median_s(ours, pair, asked.runs) for pair in pairs.values()]}
    seconds["MONAI"] = [median_s(monai, pair, asked.runs) for pair in pairs.values()]
    if asked.peer_python:
        seconds |= peers(asked.peer_python, pairs, asked.runs, slow=asked.slow_peers)
    print(f"{'':18}" + "".join(f"{name:>21}" for name in [*pairs, "median"]))
    mine = statistics.median(seconds["ours"])
    for name, each in seconds.items():
        middle = statistics.median(each)
        row = "".join(f"{value:21.4f}" for value in [*each, middle])
        print(f"{name:18}{row} s  {middle / mine:7.1f} times ours")
    print(f"peak memory of scoring, besides the five pairs themselves: {peak_memory_mb():.0f} MB")


if __name__ == "__main__":
    main()
