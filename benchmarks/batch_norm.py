"""What the sites' own batch-norm statistics are worth where their scanners differ.

Usage: python benchmarks/batch_norm.py [--out FOLDER] [--seeds 1 2 3]
           [--sharing shared local-statistics local] [--task brats-2021]

Draws the phantoms of `configs/batch-norm-phantoms.toml`, runs `configs/batch-norm.toml` once per
seed and way of sharing, and prints the mean Dice over regions: on every training site's own
validation cases after the last round, and on the held-out site, which estimates statistics on its
own unlabelled images under `local-statistics` and has none to predict with under `local` (FedBN).
With `--task brats-2021` the same phantoms are z-scored case by case before the network sees them.
A run that is finished in FOLDER is not run again.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pandas as pd

from common.codec import read_toml, write_toml
from common.config import BatchNormSharing, RunConfig, Simulation
from simulation.partition import Partition, write_csv
from simulation.phantoms import PhantomStudy, partition_of, write_study

CONFIGS = Path(__file__).parents[1] / "configs"
SHARING: tuple[BatchNormSharing, ...] = ("shared", "local-statistics", "local")


def run_one(
    sharing: BatchNormSharing, seed: int, task: str | None, folder: Path
) -> dict[str, float]:
    """Run the study once, unless it was; return the mean Dice by site."""
    data, out = folder / f"data-{seed}", folder / f"{sharing}-{seed}"
    study = replace(read_toml(PhantomStudy, CONFIGS / "batch-norm-phantoms.toml"), seed=seed)
    if not data.exists():
        write_study(study, data)
    config = config_of(sharing, seed, task)
    if not (out / "report.html").exists():
        unseen = read_toml(RunConfig, CONFIGS / "batch-norm.toml").federation.held_out
        left_out = {*unseen} - {*config.federation.held_out}
        sites = partition_of(study).sites.items()
        taking_part = {name: cases for name, cases in sites if name not in left_out}
        write_csv(Partition(sites=taking_part), data / f"{sharing}.csv")
        write_toml(data / f"{sharing}.toml", config)
        simulate(data / f"{sharing}.toml", data, out)
    return {**validated(out), **{site: tested(out, site) for site in config.federation.held_out}}


def config_of(sharing: BatchNormSharing, seed: int, task: str | None) -> RunConfig:
    """Return the study's configuration; under FedBN nobody can be held out."""
    config = read_toml(RunConfig, CONFIGS / "batch-norm.toml")
    held_out = config.federation.held_out if sharing != "local" else ()
    return replace(
        config,
        task=task or str(CONFIGS / config.task),
        federation=replace(config.federation, seed=seed, held_out=held_out),
        model=replace(config.model, batch_norm=sharing),
        simulation=Simulation(csv=f"{sharing}.csv"),
    )


def simulate(config: Path, data: Path, out: Path) -> None:
    command = [sys.executable, "-m", "consilium", "simulate", config, "--data", data, "--out", out]
    resume = ["--resume"] if (out / "config.toml").exists() else []
    words = [*map(str, command), *resume]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def validated(out: Path) -> dict[str, float]:
    """Return every training site's mean validation Dice after its last round."""
    events = map(json.loads, (out / "events.jsonl").read_text().splitlines())
    found = [event for event in events if event["event"] == "SiteValidated"]
    return {e["site"]: fmean(e["dice"].values()) for e in sorted(found, key=lambda e: e["round"])}


def tested(out: Path, site: str) -> float:
    return float(pd.read_csv(out / "scores" / "fedavg" / f"{site}.csv")["dice"].mean())


def table(results: dict[BatchNormSharing, list[dict[str, float]]]) -> str:
    """Return a Markdown table of means over seeds, and of the least and the greatest."""
    names = sorted({site for runs in results.values() for run in runs for site in run})
    lines = ["| batch norm | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for sharing, runs in results.items():
        cells = [words(run[name] for run in runs if name in run) for name in names]
        lines.append(f"| {sharing} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def words(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return "none"
    spread = f" ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else ""
    return f"{fmean(found):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/batch-norm"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sharing", nargs="+", choices=SHARING, default=SHARING)
    parser.add_argument("--task", help="a built-in task instead of configs/batch-norm-task.toml")
    given = parser.parse_args()
    out = given.out / (given.task or "uncalibrated")
    results: dict[BatchNormSharing, list[dict[str, float]]] = {}
    for sharing in given.sharing:
        for seed in given.seeds:
            results.setdefault(sharing, []).append(run_one(sharing, seed, given.task, out))
            found = ", ".join(f"{s} {dice:.3f}" for s, dice in results[sharing][-1].items())
            print(f"{sharing}, seed {seed}: {found}", flush=True)
    (out / "batch-norm.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n" + table(results))


if __name__ == "__main__":
    main()
