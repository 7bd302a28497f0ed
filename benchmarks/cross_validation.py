"""Dice of every fold of a configuration with folds, and of all folds' cases together.

Usage: python benchmarks/cross_validation.py CONFIG.toml --data DATA --out RUNS [--folds 0 1 2 3 4]

Runs `consilium simulate CONFIG --fold K` for each fold, one after the other; a fold whose run is
finished in RUNS is not run again, one that was interrupted goes on.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from common.codec import read_toml
from common.config import RunConfig


def run_fold(config: Path, data: Path, out: Path, fold: int) -> float:
    """Run one fold to its end; return the seconds it took."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "consilium", "simulate", str(config), "--data", str(data)]
    command += ["--out", str(out), "--fold", str(fold)]
    if (out / "config.toml").exists():
        command.append("--resume")
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+")
    given = parser.parse_args()
    config = read_toml(RunConfig, given.config)
    wanted = config.simulation.folds if config.simulation else None
    if wanted is None:
        parser.error(f"{given.config}: has no [simulation.folds]")
    method, every = config.federation.methods[0], []
    for fold in given.folds or range(wanted.n):
        out = given.out / f"fold-{fold}"
        scores = out / "scores" / method / "held-out.csv"
        seconds = 0.0 if scores.exists() else run_fold(given.config, given.data, out, fold)
        table = pd.read_csv(scores)
        every.append(table)
        print(f"fold {fold}: {words(table)}, {seconds:.0f} s", flush=True)
    print(f"all: {words(pd.concat(every))}")


def words(table: pd.DataFrame) -> str:
    by_region = table.groupby("region", sort=False)["dice"]
    means = ", ".join(f"{region} {dice:.4f}" for region, dice in by_region.mean().items())
    return f"{len(table) // by_region.ngroups} cases, Dice {means}"


if __name__ == "__main__":
    main()
