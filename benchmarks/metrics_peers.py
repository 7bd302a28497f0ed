"""The other environment's half of `metrics.py`: run by its Python, prints seconds as JSON.

Usage: PEER metrics_peers.py FOLDER RUNS NAME..., where FOLDER holds one npz per case with the masks
of all regions of reference and prediction, axes (region, z, y, x).
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

SPACING_MM = (1.0, 1.0, 1.0)


def surface_distance(reference, prediction):
    import surface_distance as peer

    distances = peer.compute_surface_distances(reference, prediction, SPACING_MM)
    peer.compute_dice_coefficient(reference, prediction)
    return peer.compute_robust_hausdorff(distances, 95)


def medpy(reference, prediction):
    from medpy.metric import binary

    binary.dc(prediction, reference)
    return binary.hd95(prediction, reference, SPACING_MM)


def panoptica(reference, prediction):
    from panoptica.metrics import Metric

    Metric.DSC(reference, prediction)
    return Metric.HD95(reference, prediction, voxelspacing=SPACING_MM)


PEERS = {"surface-distance": surface_distance, "medpy": medpy, "panoptica": panoptica}


def seconds(score, pair, runs):
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        for reference, prediction in zip(*pair, strict=True):
            score(reference, prediction)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    folder, runs, *names = sys.argv[1:]
    pairs = []
    for path in sorted(Path(folder).glob("*.npz")):
        with np.load(path) as held:
            pairs.append((held["arr_0"], held["arr_1"]))
    found = {}
    for name in names:
        n_runs = 1 if name in ("medpy", "panoptica") else int(runs)
        found[name] = [seconds(PEERS[name], pair, n_runs) for pair in pairs]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
