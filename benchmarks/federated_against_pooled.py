"""Federated training against training on all sites' data at one place, on the same unseen cases.

Usage: python benchmarks/federated_against_pooled.py [CONFIG.toml] [--data DATA] [--out RUNS]
           [--rounds R] [--local-steps S] [--only fedavg pooled ...]

The configuration has R rounds of S steps at each of K training sites, so FedAvg, FedProx and
local-only take R x S x K optimisation steps in all. So do the others:

* pooled: one site has all training cases and takes R x S x K steps, as many as all sites together;
* cyclic: one site after the other, R x K rounds of S steps;
* pooled-one-share: as pooled, but R x S steps, what a single site takes: the other reading of
  "the same steps", printed beside it.

Every method is a run of its own in RUNS, with equal seeds, rates and held-out cases; a run that is
finished is not run again, one that was interrupted goes on. Local-only is the mean over the sites'
models. Printed are Dice per region, the share of pooled's, and the BraTS ranking.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from client.dataset.inspection import inspect_folder
from common.codec import read_toml, write_toml
from common.config import RunConfig, Simulation
from common.federation import MethodName
from simulation.partition import Partition, write_csv
from simulation.simulate import load_study, partition_of

CONFIG = Path(__file__).parents[1] / "configs" / "hippocampus.toml"
RUNS: tuple[str, ...] = (
    "fedavg",
    "pooled",
    "pooled-one-share",
    "cyclic",
    "fedprox",
    "local-only",
)
PROXIMAL_MU = 0.01  # as in the demo


def prepare(config: Path, data: Path, out: Path) -> Partition:
    """Write both partitions, with and without borders between the training sites."""
    study = load_study(config, data)
    names = tuple(case.name for case in inspect_folder(study.data, study.task).cases)
    partition = partition_of(study, names)
    held_out = {name: partition.sites[name] for name in study.config.federation.held_out}
    training = [cases for name, cases in partition.sites.items() if name not in held_out]
    pooled = {"pooled": tuple(name for cases in training for name in cases), **held_out}
    write_csv(partition, out / "sites.csv")
    write_csv(Partition(sites=pooled), out / "pooled.csv")
    return partition


def config_of(name: str, config: RunConfig, n_sites: int) -> RunConfig:
    """Return the configuration of one run of the comparison."""
    federation = config.federation
    rounds, steps = federation.rounds, federation.local_steps or 1
    if name in {"pooled", "pooled-one-share"}:
        share = 1 if name == "pooled-one-share" else n_sites
        one_site = replace(federation, methods=("fedavg",), min_sites=1, local_steps=steps * share)
        training = replace(config.training, optimizer_state="kept")  # a round is a place to stop at
        pooled = Simulation(csv="pooled.csv")
        return replace(config, federation=one_site, training=training, simulation=pooled)
    method: MethodName = name  # type: ignore[assignment]
    changed = replace(
        federation,
        methods=(method,),
        rounds=rounds * n_sites if method == "cyclic" else rounds,
        min_sites=1 if method == "cyclic" else federation.min_sites,
        proximal_mu=PROXIMAL_MU if method == "fedprox" else None,
    )
    return replace(config, federation=changed, simulation=Simulation(csv="sites.csv"))


def run_one(name: str, config: RunConfig, data: Path, out: Path) -> pd.DataFrame:
    """Run, or finish, one run; return its scores on the held-out cases."""
    began, run = time.perf_counter(), out / name
    if not (run / "report.html").exists():
        write_toml(out / f"{name}.toml", config)
        command = ["simulate", out / f"{name}.toml", "--data", data, "--out", run]
        consilium(*command, *(["--resume"] if (run / "config.toml").exists() else []))
    scores = run / "scores" / config.federation.methods[0]
    (site,) = config.federation.held_out
    (out / "scores").mkdir(exist_ok=True)
    for file in scores.glob(f"{site}.csv*"):  # the ranking names a method by its file
        (out / "scores" / file.name.replace(site, name, 1)).write_bytes(file.read_bytes())
    federation = config.federation
    print(
        f"{name}: {federation.rounds} rounds of {federation.local_steps} steps, "
        f"{time.perf_counter() - began:.0f} s",
        flush=True,
    )
    return pd.read_csv(scores / f"{site}.csv")


def consilium(*arguments: object) -> None:
    command = [sys.executable, "-m", "consilium", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def table(tables: dict[str, pd.DataFrame], final_rank: dict[str, float]) -> str:
    """Return a Markdown table: Dice per region and of their mean, its share of pooled's, rank."""
    dice = {name: one.groupby("region", sort=False)["dice"].mean() for name, one in tables.items()}
    regions = list(next(iter(dice.values())).index)
    lines = [f"| run | mean Dice | {' | '.join(regions)} | share of pooled | rank |"]
    lines.append("|---" * (len(regions) + 4) + "|")
    for name, one in dice.items():
        share = f"{one.mean() / dice['pooled'].mean():.2%}" if "pooled" in dice else ""
        cells = " | ".join(f"{one[region]:.4f}" for region in regions)
        lines.append(
            f"| {name} | {one.mean():.4f} | {cells} | {share} | {final_rank.get(name, '')} |"
        )
    return "\n".join(lines)


def main() -> None:
    shared = Path(os.environ.get("CONSILIUM_SHARED", ".")) / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=CONFIG)
    parser.add_argument("--data", type=Path, default=shared / "Task04_Hippocampus")
    parser.add_argument("--out", type=Path, default=Path("runs/federated-against-pooled"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--local-steps", type=int)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=RUNS)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    config = read_toml(RunConfig, given.config)
    changes = {"rounds": given.rounds, "local_steps": given.local_steps}
    wanted = {key: value for key, value in changes.items() if value is not None}
    config = replace(config, federation=replace(config.federation, **wanted))
    config = replace(config, evaluation=replace(config.evaluation, pictures=False))
    partition = prepare(given.config, given.data, given.out)
    n_sites = len(partition.sites) - len(config.federation.held_out)
    tables = {
        name: run_one(name, config_of(name, config, n_sites), given.data, given.out)
        for name in given.only
    }
    ranking = {}
    if len(tables) > 1:
        files = [given.out / "scores" / f"{name}.csv" for name in tables]
        consilium("rank", *files, "-o", given.out / "ranking.json")
        ranking = json.loads((given.out / "ranking.json").read_text())["final_rank"]
    print("\n" + table(tables, ranking))


if __name__ == "__main__":
    main()
