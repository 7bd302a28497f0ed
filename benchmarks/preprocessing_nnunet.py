"""Run by nnunetv2's own interpreter, for `preprocessing.py`.

`arrays FOLDER`: prepares every FOLDER/*.case.npz by FOLDER/*.plan.json and writes *.peer.npz.
`seconds DATASET CONFIGURATION RUNS`: prepares a whole data set and prints seconds, one per run.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

N_PROCESSES = 2
PLANS = "nnUNetPlans"


def arrays(folder: Path) -> None:
    for path in sorted(folder.glob("*.case.npz")):
        name = path.name.removesuffix(".case.npz")
        plans = PlansManager(json.loads((folder / f"{name}.plan.json").read_text()))
        configuration = plans.get_configuration(next(iter(plans.plans["configurations"])))
        case = np.load(path)
        image, labels, _ = DefaultPreprocessor(verbose=False).run_case_npy(
            case["image"],
            case["labels"][None].astype(np.float32),  # as its reader gives them
            {"spacing": case["spacing_mm"].tolist()},
            plans,
            configuration,
            {"labels": {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}},
        )
        np.savez_compressed(folder / f"{name}.peer.npz", image=image, labels=labels[0])


def seconds(dataset: str, configuration: str, runs: int) -> None:
    for run in range(runs + 1):
        began = time.perf_counter()
        DefaultPreprocessor(verbose=False).run(dataset, configuration, PLANS, N_PROCESSES)
        if run:  # the first fills the file cache
            print(time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1] == "arrays":
        arrays(Path(sys.argv[2]))
    else:
        seconds(sys.argv[2], sys.argv[3], int(sys.argv[4]))
