"""What faulty sites do to each method: Dice on a held-out site with an attack, and without.

Usage: python benchmarks/attacks.py [--out FOLDER] [--federations 1-of-5 2-of-7 1-of-7]
           [--methods fedavg median ...] [--attacks none NaN ...] [--seeds 1 2] [--processes 2]

Synthetic brains of equal scanners, equally many at every site; all sites train from the weights
that the coordinator sent, and the faulty ones alter what they send back, in every round:

* sign flip: sent - update; 100x: sent + 100 update; noise: a normal deviation of 1 on every weight;
  NaN: nothing but that; constant: every weight is 1;
* label flip: the site is honest and trains as it should, but on labels that are permuted.

The federation is the product's own, round for round; the faulty sites stand in front of the
unmodified ClientApp. Printed is the mean Dice over regions and cases of the held-out site, the
median over seeds. "stopped" is a run that ended because fewer updates were usable than the method
needs for its promise, "undefined" a method that makes none among so few sites. FOLDER gets
`attacks.json` with every run; a run that is in it is not run again.
"""

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from flwr.app import Context, Message

from client.app import app
from client.dataset.nifti import read_labels, write_labels
from client.site import SiteConfig
from common.augmentation import Augmentation
from common.axes import Weights
from common.codec import write_toml
from common.config import Evaluation, Model, Planning, RunConfig, Training
from common.errors import FederationError
from common.federation import Federation, MethodName, fewest_sites
from common.messages import TrainTask, Update
from common.random import step_rng
from common.schedules import Poly
from common.task import load_task
from common.wire import body_of, to_content, weights_of
from server.event_log import EventLog
from server.flower_sites import FlowerSites
from server.run import run
from server.run_folder import RunFolder
from simulation.grid import InProcessGrid
from simulation.phantoms import PhantomSite, PhantomStudy, partition_of, write_study
from simulation.simulate import OPEN_POLICY

METHODS: tuple[MethodName, ...] = (
    "fedavg",
    "ida",
    "dwa",
    "median",
    "trimmed-mean",
    "krum",
    "multi-krum",
    "bulyan",
    "trust",
)
FEDERATIONS = {"1-of-5": (5, 1), "2-of-7": (7, 2), "1-of-7": (7, 1)}
Attack = Callable[[Weights, Weights, np.random.Generator], Weights]
ATTACKS: dict[str, Attack | None] = {
    "none": None,
    "sign flip": lambda sent, own, _: {n: w - (own[n] - w) for n, w in sent.items()},
    "100x": lambda sent, own, _: {n: w + 100 * (own[n] - w) for n, w in sent.items()},
    "noise": lambda _, own, rng: {
        n: w + rng.standard_normal(w.shape).astype(w.dtype) for n, w in own.items()
    },
    "NaN": lambda _, own, __: {n: np.full_like(w, np.nan) for n, w in own.items()},
    "constant": lambda _, own, __: {n: np.full_like(w, 1) for n, w in own.items()},
    "label flip": None,  # its data are altered instead
}
HELD_OUT, CASES_PER_SITE, CASES_HELD_OUT, VOXEL_MM = "unseen", 6, 12, 7.0
OTHER_LABEL = {0: 2, 1: 0, 2: 4, 4: 1}


@dataclass(frozen=True)
class Wanted:
    """One run of the table."""

    federation: str
    seed: int
    method: MethodName
    attack: str

    @property
    def faulty(self) -> tuple[str, ...]:
        """The faulty sites: the last ones."""
        n_sites, n_faulty = FEDERATIONS[self.federation]
        return tuple(f"site-{n}" for n in range(n_sites - n_faulty + 1, n_sites + 1))


def config_of(wanted: Wanted) -> RunConfig:
    n_sites, n_faulty = FEDERATIONS[wanted.federation]
    least = max(n_sites - n_faulty, fewest_sites(wanted.method, n_faulty))
    return RunConfig(
        task="brats-2021",
        federation=Federation(
            seed=wanted.seed,
            methods=(wanted.method,),
            rounds=8,
            local_steps=12,
            held_out=(HELD_OUT,),
            min_sites=least,
            proximal_mu=0.01,
            n_faulty=n_faulty,
            root_site="site-1",  # never a faulty one
        ),
        model=Model(
            configuration="3d_fullres",
            norm="instance",
            batch_norm="shared",
            output="regions",
            base_features=8,
            deep_supervision=False,
        ),
        planning=Planning(rules="paper", memory_gb=8, max_batch_size=2),
        training=Training(
            optimizer="adamw",
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=0.01,
            schedule=Poly(power=0.9),
            gradient_clip_norm=12.0,
            augmentation=Augmentation(preset="mirror"),
            validation_fraction=0,
            compile="off",
            checkpoint_every_steps=0,
        ),
        evaluation=Evaluation(
            hd95="pooled", mirroring=False, calibration_patches=1, ties="min", pictures=False
        ),
    )


def attacking(wanted: Wanted, nodes: Collection[int]) -> Callable[[Message, Context], Message]:
    """Return the ClientApp, with nodes that alter the weights of their answers."""
    attack = ATTACKS[wanted.attack]

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        is_update = message.metadata.message_type == "train" and reply.has_content()
        if attack is None or not is_update or context.node_id not in nodes:
            return reply
        round_ = body_of(TrainTask, message.content).round
        rng = step_rng(wanted.seed, str(context.node_id), round_, 0, "attack")
        altered = attack(weights_of(message.content), weights_of(reply.content), rng)
        content = to_content(body_of(Update, reply.content), altered)
        return Message(content, reply_to=message)

    return answer


def run_one(wanted: Wanted, data: Path) -> dict[str, object]:
    """Run one federation; return its Dice, or why it stopped, and which sites were refused."""
    torch.set_num_threads(1)
    config = config_of(wanted)
    with tempfile.TemporaryDirectory() as home:
        folder = RunFolder(Path(home) / "run")
        nodes = write_sites(wanted, data, Path(home))
        faulty = [n for n, name in nodes.items() if name in wanted.faulty]
        files = {n: {"site": str(Path(home) / f"{name}.toml")} for n, name in nodes.items()}
        sites = FlowerSites(InProcessGrid(attacking(wanted, faulty), files))  # type: ignore[arg-type]
        log, task = EventLog(folder.events), load_task(config.task)
        try:
            run(config, task, sites, folder, log, device="benchmark")
        except FederationError as error:
            return asdict(wanted) | {"dice": None, "stopped": str(error)}
        scores = pd.read_csv(folder.scores(wanted.method, HELD_OUT))
        events = map(json.loads, folder.events.read_text().splitlines())
        refused = {e["site"]: e["reason"] for e in events if e["event"] == "SiteFailed"}
        return asdict(wanted) | {"dice": float(scores["dice"].mean()), "refused": refused}


def write_sites(wanted: Wanted, data: Path, home: Path) -> dict[int, str]:
    """Write the sites' files; return the sites by number of node."""
    parts = partition_of(study_of(wanted.federation, wanted.seed)).sites
    for name, cases in parts.items():
        flipped = wanted.attack == "label flip" and name in wanted.faulty
        site = SiteConfig(
            name=name,
            data=str(data / ("flipped" if flipped else "true")),
            state=str(home / name),
            policy=OPEN_POLICY,
            cases=cases,
        )
        write_toml(home / f"{name}.toml", site)
    return dict(enumerate(parts, start=1))


def study_of(federation: str, seed: int) -> PhantomStudy:
    site = PhantomSite(
        name=HELD_OUT,
        n_cases=CASES_HELD_OUT,
        spacing_mm=(VOXEL_MM,) * 3,
        gain=(400.0, 450.0, 500.0, 300.0),
        gamma=(1.0, 1.0, 1.0, 1.0),
        noise_fraction=0.03,
        bias_fraction=0.05,
        tumour_radius_mm=28.0,
        tumour_radius_spread=0.2,
        without_enhancing_fraction=0.0,
    )
    n_sites, _ = FEDERATIONS[federation]
    training = [
        replace(site, name=f"site-{n}", n_cases=CASES_PER_SITE) for n in range(1, n_sites + 1)
    ]
    return PhantomStudy(seed=seed, field_of_view_mm=(140.0, 168.0, 144.0), sites=(*training, site))


def draw(federation: str, seed: int, folder: Path) -> None:
    """Write the cases, and once more with wrong labels."""
    write_study(study_of(federation, seed), folder / "true")
    lookup = np.zeros(256, np.uint8)
    for label, other in OTHER_LABEL.items():
        lookup[label] = other
    for case in sorted(path for path in (folder / "true").iterdir() if path.is_dir()):
        target = folder / "flipped" / case.name
        target.mkdir(parents=True)
        for file in case.iterdir():
            if not file.name.endswith("_seg.nii.gz"):
                (target / file.name).symlink_to(file)
        labels, grid = read_labels(case / f"{case.name}_seg.nii.gz", None)
        write_labels(target / f"{case.name}_seg.nii.gz", lookup[labels], grid)


def wanted_runs(given: argparse.Namespace) -> Iterator[Wanted]:
    """Yield the runs of the table; a method that is undefined among so few sites has none."""
    for federation in given.federations:
        n_sites, n_faulty = FEDERATIONS[federation]
        for method in given.methods:
            if fewest_sites(method, n_faulty) > n_sites:
                continue
            for seed in given.seeds:
                for attack in given.attacks:
                    yield Wanted(federation, seed, method, attack)


def table(rows: list[dict[str, object]], given: argparse.Namespace, federation: str) -> str:
    """Return a Markdown table; in brackets what the attack changed."""
    lines = [f"| {federation} | " + " | ".join(given.attacks) + " |"]
    lines.append("|---" * (len(given.attacks) + 1) + "|")
    for method in given.methods:
        cells = [_cell(rows, federation, method, attack) for attack in given.attacks]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: list[dict[str, object]], federation: str, method: str, attack: str) -> str:
    def dice(attack: str) -> list[float | None]:
        key = {"federation": federation, "method": method, "attack": attack}
        return [row["dice"] for row in rows if key.items() <= row.items()]  # type: ignore[misc]

    found = dice(attack)
    if not found:
        return "undefined"
    if None in found:
        return "stopped"
    value = median(found)  # type: ignore[type-var]
    clean = dice("none")
    change = f" ({value - median(clean):+.3f})" if attack != "none" and clean else ""  # type: ignore[operator,type-var]
    return f"{value:.3f}{change}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/attacks"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--federations", nargs="+", default=list(FEDERATIONS))
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS))
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    record, runs = given.out / "attacks.json", list(wanted_runs(given))
    rows = json.loads(record.read_text()) if record.exists() else []
    done = [{key: row[key] for key in asdict(runs[0])} for row in rows]
    with (
        tempfile.TemporaryDirectory() as home,
        ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool,
    ):
        left = [wanted for wanted in runs if asdict(wanted) not in done]
        for federation, seed in sorted({(one.federation, one.seed) for one in left}):
            draw(federation, seed, Path(home) / f"{federation}-{seed}")
        folders = [Path(home) / f"{one.federation}-{one.seed}" for one in left]
        for row in pool.map(run_one, left, folders):
            rows.append(row)
            record.write_text(json.dumps(rows, indent=1) + "\n")
            print(".", end="", flush=True)
    print()
    for federation in given.federations:
        print(table(rows, given, federation) + "\n")


if __name__ == "__main__":
    main()
