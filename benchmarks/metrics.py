"""Seconds for Dice and HD95 of three regions on 240x240x155, ours and MONAI's, in the same run.

Usage: python benchmarks/metrics.py [--runs 5]. One thread, labels in memory, median of the runs.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance

from common.axes import LabelMap
from common.metrics import score_case
from common.task import load_task, regions_of

TASK = load_task("brats-2021")
SHAPE = (155, 240, 240)


def tumour(centre: tuple[int, int, int], scale: float) -> LabelMap:
    """Return nested ellipsoids: oedema around core around enhancing tumour."""
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = np.sqrt(
        ((z - centre[0]) / 0.8) ** 2 + (y - centre[1]) ** 2 + ((x - centre[2]) / 1.2) ** 2
    )
    labels = np.zeros(SHAPE, np.uint8)
    for label, radius in ((2, 45), (1, 28), (4, 18)):
        labels[distance < radius * scale] = label
    return labels


def ours(reference: LabelMap, prediction: LabelMap) -> list[float]:
    scores = score_case(reference, prediction, (1.0, 1.0, 1.0), TASK, hd95="max")
    return [score.hd95 for score in scores.values()]


def monai(reference: LabelMap, prediction: LabelMap) -> list[float]:
    masks = [torch.from_numpy(regions_of(labels, TASK))[None] for labels in (prediction, reference)]
    compute_dice(*masks)
    found = compute_hausdorff_distance(*masks, percentile=95, include_background=True)
    return [float(value) for value in found[0]]


def median_s(score: Callable[[LabelMap, LabelMap], object], runs: int) -> float:
    reference, prediction = tumour((77, 120, 120), 1.0), tumour((80, 124, 117), 0.95)
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        score(reference, prediction)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    mine, peer = median_s(ours, runs), median_s(monai, runs)
    print(f"ours {mine:.3f} s   MONAI {peer:.3f} s   ratio {mine / peer:.2f}")


if __name__ == "__main__":
    main()
