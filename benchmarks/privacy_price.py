"""What patient-level differential privacy costs: Dice against epsilon, on cases never seen.

Usage: python benchmarks/privacy_price.py [--data DATA | --phantoms] [--out RUNS]
           [--epsilons 1 3 8] [--only NAME ...]

Runs `configs/hippocampus-private.toml` for every epsilon, each patient of the four sites protected
over the whole run, at a rate in proportion to epsilon (so that the noise moves the weights equally
far, for its deviation goes about as 1 / epsilon), and beside it

* public: a model of the public site's cases alone, by the federation's plan, which costs no patient
  of the others anything: what the others start from, and what a federation has to beat;
* without: the same federation, same start, all weights, without noise and clipping;
* all-E: epsilon E, but all weights are trained, and not only biases, norms and heads.

With `--phantoms` the same federation learns whole tumours in synthetic brains instead. Prints a
Markdown table and writes RUNS/price.svg. A run that is finished is not run again.
"""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

from client.dataset.inspection import inspect_folder
from common.codec import read_toml, write_toml
from common.config import FinishedRun, RunConfig, Simulation
from common.errors import ConfigError
from common.schedules import Poly
from common.task import Task
from simulation.partition import Partition, by_sizes, write_csv
from simulation.phantoms import PhantomSite, PhantomStudy, write_study
from simulation.simulate import load_study

CONFIG = Path(__file__).parents[1] / "configs" / "hippocampus-private.toml"
PUBLIC, PLANNED = "public", "planned"
PUBLIC_STEPS = 600
WITHOUT_RATE = 0.05  # of gradients that nothing clips


def draw_phantoms(folder: Path, sizes: dict[str, int]) -> Path:
    """Write one study of brains from one kind of scanner, as many as the sites have; once."""
    if not folder.exists():
        site = PhantomSite(
            name="all",
            n_cases=sum(sizes.values()),
            spacing_mm=(5.0, 5.0, 5.0),
            gain=(400.0, 450.0, 500.0, 300.0),
            gamma=(1.0, 1.0, 1.0, 1.0),
            noise_fraction=0.03,
            bias_fraction=0.05,
            tumour_radius_mm=26.0,
            tumour_radius_spread=0.2,
            without_enhancing_fraction=0.0,
        )
        study = PhantomStudy(seed=1, field_of_view_mm=(140.0, 168.0, 144.0), sites=(site,))
        write_study(study, folder)
    return folder


def prepare(config: RunConfig, data: Path, task: Task, out: Path) -> None:
    """Write both partitions: of the public site, and of the hospitals."""
    names = tuple(case.name for case in inspect_folder(data, task).cases)
    wanted = config.simulation
    sites = dict(by_sizes(names, wanted.sizes, config.federation.seed).sites) if wanted else {}
    held_out = {name: sites[name] for name in config.federation.held_out}
    write_csv(Partition(sites={PUBLIC: sites.pop(PUBLIC), **held_out}), out / "public.csv")
    write_csv(Partition(sites=sites), out / "sites.csv")


def config_of(name: str, config: RunConfig, out: Path) -> RunConfig:
    """Return the configuration of one run."""
    sites = replace(config, simulation=Simulation(csv="sites.csv"))
    start = replace(config.model, start=FinishedRun(run=str(out / PUBLIC), method="fedavg"))
    everything = replace(config.training, trained="all", learning_rate=WITHOUT_RATE)
    if name in (PLANNED, PUBLIC):
        return _before(name, replace(config, training=everything), out)
    if name == "without":
        return replace(sites, privacy=None, model=start, training=everything)
    return replace(sites, model=start, **_private(name, config))  # type: ignore[arg-type]


def _private(name: str, config: RunConfig) -> dict[str, object]:
    """Return the privacy and the training of a run whose name tells its epsilon."""
    if config.privacy is None or config.privacy.epsilon is None:
        raise ConfigError("expected a configuration with an epsilon")
    epsilon = float(name.removeprefix("all-"))
    rate = config.training.learning_rate * epsilon / config.privacy.epsilon
    everything = name.startswith("all-")
    training = replace(
        config.training,
        trained="all" if everything else config.training.trained,
        learning_rate=WITHOUT_RATE if everything else rate,
    )
    return {"privacy": replace(config.privacy, epsilon=epsilon), "training": training}


def _before(name: str, config: RunConfig, out: Path) -> RunConfig:
    """Return what is done first: make the federation's plan, train the public model by it."""
    is_public = name == PUBLIC
    federation = replace(
        config.federation,
        min_sites=1 if is_public else config.federation.min_sites,
        rounds=1,
        local_steps=PUBLIC_STEPS if is_public else 1,
        final_model="last",
        average_decay=None,
    )
    training = replace(
        config.training,
        optimizer="adamw",
        learning_rate=0.003,
        weight_decay=0.01,
        schedule=Poly(power=0.9),
        gradient_clip_norm=12.0,
        augmentation=replace(config.training.augmentation, preset="nnunet"),  # there are few cases
    )
    plan = str(out / PLANNED / "plan.json") if is_public else None
    return replace(
        config,
        privacy=None,
        simulation=Simulation(csv="public.csv" if is_public else "sites.csv"),
        federation=federation,
        training=training,
        model=replace(config.model, start=None),
        planning=replace(config.planning, edited_plan=plan),
    )


def run_one(name: str, config: RunConfig, data: Path, out: Path) -> pd.Series:
    """Run, or finish, one run; return the mean Dice by region on the held-out cases."""
    run = out / name
    if not (run / "report.html").exists():
        write_toml(out / f"{name}.toml", config)
        resume = ["--resume"] if (run / "config.toml").exists() else []
        arguments = ["simulate", out / f"{name}.toml", "--data", data, "--out", run, *resume]
        command = [sys.executable, "-m", "consilium", *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (site,) = config.federation.held_out
    scores = pd.read_csv(run / "scores" / "fedavg" / f"{site}.csv")
    return scores.groupby("region", sort=False)["dice"].mean()


def table(dice: dict[str, pd.Series]) -> str:
    """Return a Markdown table: Dice per region, their mean, and what is lost against `without`."""
    regions = list(next(iter(dice.values())).index)
    lines = [f"| run | {' | '.join(regions)} | mean | lost |", "|---" * (len(regions) + 3) + "|"]
    for name, one in dice.items():
        lost = f"{dice['without'].mean() - one.mean():.3f}" if "without" in dice else ""
        cells = " | ".join(f"{one[region]:.3f}" for region in regions)
        lines.append(f"| {name} | {cells} | {one.mean():.3f} | {lost} |")
    return "\n".join(lines)


def draw(dice: dict[str, pd.Series], path: Path) -> None:
    """Plot mean Dice against epsilon, with the runs that have none as lines."""
    mpl.rcParams["svg.hashsalt"] = "consilium"
    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for prefix, label in (("", "biases, norms and heads"), ("all-", "all weights")):
        found = {
            float(name.removeprefix(prefix)): one.mean()
            for name, one in dice.items()
            if name.removeprefix(prefix).replace(".", "").isdigit() and name.startswith(prefix)
        }
        if found:
            axes.plot(sorted(found), [found[e] for e in sorted(found)], "o-", label=label)
    for name, style in (("without", "--"), (PUBLIC, ":")):
        if name in dice:
            axes.axhline(dice[name].mean(), linestyle=style, color="0.4", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("epsilon of the whole run, per patient")
    axes.set_ylabel("mean Dice on held-out cases (fraction)")
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    shared = Path(os.environ.get("CONSILIUM_SHARED", ".")) / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=CONFIG)
    parser.add_argument("--data", type=Path, default=shared / "Task04_Hippocampus")
    parser.add_argument("--phantoms", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/privacy-price"))
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0])
    parser.add_argument("--only", nargs="+")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    config, data = read_toml(RunConfig, given.config), given.data
    if given.phantoms:
        sizes = config.simulation.sizes if config.simulation else None
        data = draw_phantoms(out / "data", sizes or {})
        model = replace(config.model, output="regions")
        config = replace(config, task="brats-2021", model=model)
    write_toml(out / "whole.toml", config)  # for its paths and its task
    prepare(config, data, load_study(out / "whole.toml", data).task, out)
    private = [f"{epsilon:g}" for epsilon in given.epsilons]
    names = given.only or [PUBLIC, "without", *private, f"all-{private[-1]}"]
    run_one(PLANNED, config_of(PLANNED, config, out), data, out)
    dice = {name: run_one(name, config_of(name, config, out), data, out) for name in names}
    print(table(dice))
    draw(dice, out / "price.svg")


if __name__ == "__main__":
    main()
