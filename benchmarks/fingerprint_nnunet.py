"""Run by nnunetv2's own interpreter, for `fingerprint.py`: prints seconds, one line per run."""

import sys
import time

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)

N_PROCESSES = 2


def main() -> None:
    dataset, runs = sys.argv[1], int(sys.argv[2])
    for run in range(runs + 1):
        began = time.perf_counter()
        DatasetFingerprintExtractor(dataset, N_PROCESSES).run(overwrite_existing=True)
        if run:  # the first fills the cache
            print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
