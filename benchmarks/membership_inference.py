"""Can somebody who has the final model tell whose images it was trained on?

Usage: python benchmarks/membership_inference.py [--patients 24] [--models 24] [--steps 100]
           [--epsilons 8 3 1] [--plot membership.svg]

Draws phantoms, and for every setting trains as many small networks, each on a random half of the
patients: without privacy until they overfit, and by patient-level DP-SGD for every epsilon. Two
attackers see the final weights and every patient's images and labels, but not who took part:

* threshold: a patient on whom the loss is small took part (Yeom et al. 2018);
* LiRA: for every patient the losses of the other networks, half of which had the patient, give two
  normal distributions; the likelihood ratio decides (Carlini et al. 2022).

Printed is the area under each attacker's ROC curve over all pairs of network and patient (.5 is
guessing), with its standard deviation over networks, beside the largest area that the guarantee
allows to any attacker: 1 - (1 - delta)**2 / (1 + e**epsilon), the area under the two lines of
(epsilon, delta) (Kairouz et al. 2015).
"""

import argparse
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.batches.patches import Batch
from client.device import Device, choose_device
from client.privacy.private_step import Mechanism
from client.privacy.sampling import poisson_draws
from client.training.optimise import Pace
from client.training.private_training import train_privately
from client.training.train import Learner, Objective, begin, loss_of, train
from common.augmentation import Augmentation
from common.config import Model, Training
from common.network import build_network, initial_weights, load_weights
from common.planning.plan import Configuration
from common.privacy.accounting import noise_for
from common.schedules import Constant
from common.task import load_task
from simulation.phantoms import PhantomSite, PhantomStudy, draw_phantom

TASK = load_task("brats-2021")
DELTA = 0.02
SAMPLING_RATE = 0.25
CLIP_NORM = 0.5
OVERFIT = 4  # times as many steps without privacy, to have something to find
SIZE = (24, 24, 24)
PLAN = Configuration(
    spacing_mm=(7.0, 7.0, 7.0),
    median_shape=(20.0, 24.0, 21.0),
    patch_size=SIZE,
    batch_size=4,
    strides=((2, 2, 2), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 3,
    features_per_stage=(8, 16, 32),
    batch_dice=False,
    deep_supervision_weights=(1.0, 0.0),
)
MODEL = Model(
    configuration="3d_fullres",
    norm="instance",
    batch_norm="local-statistics",
    output="regions",
    base_features=8,
    deep_supervision=False,
)
OBJECTIVE = Objective(
    task=TASK, output="regions", batch_dice=False, supervision=(1.0,), proximal_mu=0.0
)


@dataclass(frozen=True)
class Setting:
    """How networks are trained."""

    name: str
    epsilon: float
    noise_multiplier: float | None


def patients(n: int) -> list[Batch]:
    """Draw patients; each is one patch that holds the whole brain, z-scored inside it."""
    site = PhantomSite(
        name="all",
        n_cases=n,
        spacing_mm=(7.0, 7.0, 7.0),
        gain=(400.0, 450.0, 500.0, 300.0),
        gamma=(1.0, 1.0, 1.0, 1.0),
        noise_fraction=0.05,
        bias_fraction=0.09,
        tumour_radius_mm=28.0,
        tumour_radius_spread=0.3,
        without_enhancing_fraction=0.2,
    )
    study = PhantomStudy(seed=1, field_of_view_mm=(140.0, 168.0, 144.0), sites=(site,))
    found = []
    for number in range(n):
        phantom = draw_phantom(study, site, number)
        image, labels = np.zeros((1, 4, *SIZE), np.float32), np.zeros((1, *SIZE), np.uint8)
        brain = phantom.image[0] > 0
        inside = phantom.image[:, brain]
        image[0][(slice(None), *map(slice, brain.shape))] = np.where(
            brain,
            (phantom.image - inside.mean(1)[:, None, None, None])
            / inside.std(1)[:, None, None, None],
            0,
        )
        labels[0][tuple(map(slice, brain.shape))] = phantom.labels
        found.append(Batch(image, labels))
    return found


def fresh(device: Device, seed: int, *, private: bool) -> Learner:
    """Return a network with random weights, and its optimiser."""
    training = Training(
        optimizer="sgd" if private else "adamw",
        learning_rate=0.1 if private else 0.003,
        momentum=0.9,
        weight_decay=0.0,
        schedule=Constant(),
        gradient_clip_norm=1000.0,
        augmentation=Augmentation(preset="none"),
        validation_fraction=0,
    )
    network = build_network(TASK, PLAN, MODEL)
    load_weights(network, initial_weights(network, seed))
    return begin(device.place_network(network), training, device, proximal=False)


def trained(
    members: Sequence[Batch], setting: Setting, steps: int, device: Device, seed: int
) -> nn.Module:
    """Return a network trained on these patients and no others."""
    private = setting.noise_multiplier is not None
    learner = fresh(device, seed, private=private)
    rate = learner.optimizer.param_groups[0]["lr"]
    pace = Pace(Constant(), rate, 0, steps)
    if setting.noise_multiplier is None:
        train(learner, _batches(members, steps, seed), OBJECTIVE, pace, device)
        return learner.network
    mechanism = Mechanism(
        clip_norm=CLIP_NORM,
        noise_multiplier=setting.noise_multiplier,
        expected_patients=SAMPLING_RATE * len(members),
        patches_at_once=1,
    )
    draws = poisson_draws(len(members), SAMPLING_RATE, steps)
    drawn = ([members[index] for index in draw] for draw in draws)
    train_privately(learner, drawn, OBJECTIVE, pace, device, mechanism=mechanism)
    return learner.network


def _batches(members: Sequence[Batch], steps: int, seed: int) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    for _ in repeat(None, steps):
        chosen = [members[i] for i in rng.choice(len(members), PLAN.batch_size, replace=False)]
        images = np.concatenate([one.images for one in chosen])
        yield Batch(images, np.concatenate([one.labels for one in chosen]))


def losses(network: nn.Module, everyone: Sequence[Batch], device: Device) -> NDArray[np.float64]:
    """Return the network's loss on every patient."""
    learner = begin(network.eval(), _no_training(), device, proximal=False)
    with torch.no_grad():
        return np.array([loss_of(learner, one, OBJECTIVE, device).item() for one in everyone])


def _no_training() -> Training:
    return Training(
        optimizer="sgd",
        learning_rate=1.0,
        momentum=0.0,
        weight_decay=0.0,
        schedule=Constant(),
        gradient_clip_norm=1.0,
        augmentation=Augmentation(preset="none"),
        validation_fraction=0,
    )


def lira(loss: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the log likelihood ratio of every (network, patient), by all other networks.

    Variances are pooled over patients: of each there are few networks (Carlini et al. 2022).
    """
    ratios = np.empty_like(loss)
    for target in range(len(loss)):
        others = np.delete(np.arange(len(loss)), target)
        seen = member[others]
        inside = np.where(seen, loss[others], np.nan)
        outside = np.where(seen, np.nan, loss[others])
        means = np.nanmean(inside, 0), np.nanmean(outside, 0)
        widths = [math.sqrt(np.nanmean(np.nanvar(part, 0))) + 1e-9 for part in (inside, outside)]
        scores = [
            -0.5 * ((loss[target] - mean) / width) ** 2 - math.log(width)
            for mean, width in zip(means, widths, strict=True)
        ]
        ratios[target] = scores[0] - scores[1]
    return ratios


def area(score: NDArray[np.float64], member: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a member scores above another."""
    above, below = score[member][:, None], score[~member][None]
    return float(((above > below) + 0.5 * (above == below)).mean())


def allowed(epsilon: float) -> float:
    """Return the largest area that (epsilon, DELTA) leaves to any attacker."""
    return 1 - (1 - DELTA) ** 2 / (1 + math.exp(min(epsilon, 700.0)))


def settings_of(epsilons: Sequence[float], steps: int) -> list[Setting]:
    found = [Setting("no privacy", math.inf, None)]
    for epsilon in epsilons:
        noise = noise_for(epsilon, DELTA, SAMPLING_RATE, steps)
        found.append(Setting(f"epsilon {epsilon:g}", epsilon, noise))
    return found


def draw(rows: Sequence[tuple[Setting, float, float]], path: Path) -> None:
    mpl.rcParams["svg.hashsalt"] = "consilium"
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    places = np.arange(len(rows))
    axes.bar(places - 0.18, [row[1] for row in rows], 0.34, label="threshold")
    axes.bar(places + 0.18, [row[2] for row in rows], 0.34, label="LiRA")
    axes.plot(places, [allowed(row[0].epsilon) for row in rows], "k_", markersize=36, label="bound")
    axes.axhline(0.5, color="0.5", linestyle=":", label="guessing")
    axes.set_xticks(places, [row[0].name for row in rows])
    axes.set_ylim(0.4, 1.02)
    axes.set_ylabel("area under the ROC curve")
    axes.legend(frameon=False, ncols=2)
    figure.savefig(path)


def attacked(
    setting: Setting, everyone: Sequence[Batch], member: NDArray[np.bool_], steps: int
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return every network's loss on every patient, and each attacker's area per network."""
    device, found = choose_device("auto"), []
    for seed, row in enumerate(member):
        chosen = [everyone[index] for index in np.flatnonzero(row)]
        found.append(losses(trained(chosen, setting, steps, device, seed), everyone, device))
    loss = np.stack(found)
    scores = -loss, lira(loss, member)
    return loss, [np.array([area(s[n], member[n]) for n in range(len(member))]) for s in scores]


def halves(n_networks: int, n_patients: int) -> NDArray[np.bool_]:
    """Return who trains which network: a random half for one, the others for the next."""
    rng, member = np.random.default_rng(1), np.zeros((n_networks, n_patients), bool)
    for first in range(0, n_networks, 2):
        member[first, rng.permutation(n_patients)[: n_patients // 2]] = True
        member[first + 1 : first + 2] = ~member[first]
    return member


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=24)
    parser.add_argument("--models", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[8.0, 3.0, 1.0])
    parser.add_argument("--plot", type=Path, default=Path(tempfile.gettempdir()) / "membership.svg")
    given = parser.parse_args()
    everyone, member = patients(given.patients), halves(given.models, given.patients)
    rows = []
    print("| training | noise | loss in | loss out | threshold | LiRA | bound |")
    print("|---|---|---|---|---|---|---|")
    for setting in settings_of(given.epsilons, given.steps):
        private = setting.noise_multiplier is not None
        steps = given.steps if private else OVERFIT * given.steps
        loss, areas = attacked(setting, everyone, member, steps)
        cells = " | ".join(f"{one.mean():.3f} ± {one.std():.3f}" for one in areas)
        noise = f"{setting.noise_multiplier:.2f}" if private else ""
        print(
            f"| {setting.name} | {noise} | {loss[member].mean():.3f} | {loss[~member].mean():.3f} "
            f"| {cells} | {allowed(setting.epsilon):.3f} |",
            flush=True,
        )
        rows.append((setting, areas[0].mean(), areas[1].mean()))
    draw(rows, given.plot)


if __name__ == "__main__":
    main()
