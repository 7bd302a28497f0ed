"""Seconds per training step: ours, MONAI's network, nnU-Net; same plan and batch, in one run.

Usage: python benchmarks/training_step.py [--runs 5] [--plan all] [--peer-python PEER/bin/python]
       python benchmarks/training_step.py --curves 50

Ours is the loop that sites run (forward, loss, backward, proximal term of 0, clipping, SGD), with
and without compiling; MONAI's DynUNet is trained by the same loop; nnU-Net's is its own
`train_step`, in the precision that it takes on this device. The topology, the loss and the
optimiser are the same, augmentation is off. Medians of the runs, after one step that does not
count. What compiling took is printed beside: the first time,
and again with what the first time left on disk.

The peer lives in an environment of its own, because it needs other packages:
python3 -m venv PEER; PEER/bin/pip install torch==2.13.0; PEER/bin/pip install nnunetv2==2.8.1

`--curves` trains some steps from three seeds in float32 and in the precision of this machine, and
prints whether the losses differ by more than seeds do.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import DynUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from client.batches.patches import Batch
from client.device import Device, choose_device, describe
from client.training.compiling import forward_of
from client.training.optimise import Pace
from client.training.train import Learner, Objective, begin, train
from common.augmentation import Augmentation
from common.config import Model, Training
from common.network import build_network, initial_weights, load_weights
from common.planning.plan import Configuration
from common.schedules import Constant
from common.task import Task, load_task

PEER_SCRIPT = Path(__file__).with_name("training_step_nnunet.py")
LOG = logging.getLogger("benchmark")
TRAINING = Training(
    optimizer="sgd",
    learning_rate=0.01,
    momentum=0.99,
    weight_decay=3e-5,
    schedule=Constant(),
    gradient_clip_norm=12.0,
    augmentation=Augmentation(preset="none"),
    validation_fraction=0,
)


def plan_of(
    batch: int, patch: tuple[int, int, int], features: tuple[int, ...], weights: tuple[float, ...]
) -> Configuration:
    depth = len(features) - 1
    return Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(float(patch[0]), float(patch[1]), float(patch[2])),
        patch_size=patch,
        batch_size=batch,
        strides=((2, 2, 2),) * depth,
        kernel_sizes=((3, 3, 3),) * (depth + 1),
        features_per_stage=features,
        batch_dice=False,
        deep_supervision_weights=weights,
    )


PLANS = {
    # as published; BraTS at a reduced patch; and configs/hippocampus.toml
    "hippocampus": ("hippocampus", plan_of(9, (40, 56, 40), (32, 64, 128, 256), (2 / 3, 1 / 3, 0))),
    "brats": (
        "brats-2021",
        plan_of(2, (64, 64, 64), (32, 64, 128, 256, 320), (4 / 7, 2 / 7, 1 / 7, 0)),
    ),
    "small": ("hippocampus", plan_of(4, (40, 56, 40), (16, 32, 64, 128), (2 / 3, 1 / 3, 0))),
}


def network_of(task: Task, plan: Configuration, seed: int) -> nn.Module:
    model = Model(
        configuration="3d_fullres",
        norm="instance",
        batch_norm="local-statistics",
        output="labels",
        base_features=plan.features_per_stage[0],
        deep_supervision=True,
    )
    network = build_network(task, plan, model)
    load_weights(network, initial_weights(network, seed))
    return network


def learner_of(name: str, device: Device, wanted: str, cache: Path, seed: int = 0) -> Learner:
    task, plan = load_task(PLANS[name][0]), PLANS[name][1]
    network = device.place_network(network_of(task, plan, seed))
    forward = forward_of(network, wanted, pays=True, cache=cache, log=LOG)  # type: ignore[arg-type]
    return begin(network, TRAINING, device, proximal=False, forward=forward)


def batches(name: str, n_steps: int, seed: int = 0) -> Iterator[Batch]:
    """Yield batches whose labels can be learned: thresholds of the first channel."""
    task, plan = load_task(PLANS[name][0]), PLANS[name][1]
    rng = np.random.default_rng(seed)
    values = np.array([0, *task.foreground_labels], np.uint8)
    for _ in range(n_steps):
        shape = (plan.batch_size, len(task.channels), *plan.patch_size)
        images = rng.standard_normal(shape, dtype=np.float32)
        classes = np.digitize(images[:, 0], np.linspace(0.8, 2, len(values) - 1))
        yield Batch(images, values[classes])


def losses_and_seconds(
    name: str, learner: Learner, drawn: list[Batch], device: Device
) -> tuple[list[float], list[float]]:
    """Train on every batch; return the loss and the seconds of every step."""
    plan, clock = PLANS[name][1], [time.perf_counter()]
    objective = Objective(
        task=load_task(PLANS[name][0]),
        output="labels",
        batch_dice=plan.batch_dice,
        supervision=plan.deep_supervision_weights,
        proximal_mu=0.0,
    )

    def note_time(_: Learner) -> None:
        if device.device.type == "cuda":
            torch.cuda.synchronize()
        clock.append(time.perf_counter())

    pace = Pace(Constant(), TRAINING.learning_rate, first_step=0, total_steps=len(drawn))
    train(learner, drawn, objective, pace, device, after_step=note_time)
    return [loss.item() for loss in learner.losses], np.diff(clock).tolist()


def our_seconds(name: str, device: Device, wanted: str, cache: Path, runs: int) -> list[float]:
    learner = learner_of(name, device, wanted, cache)
    drawn = list(batches(name, 1)) * (runs + 1)
    return losses_and_seconds(name, learner, drawn, device)[1]


def monai_seconds(name: str, device: Device, runs: int) -> list[float]:
    """Train MONAI's network, which gives all of its heads at full resolution, without compiling."""
    task, plan = load_task(PLANS[name][0]), PLANS[name][1]
    network = DynUNet(
        3,
        len(task.channels),
        len(task.foreground_labels) + 1,
        plan.kernel_sizes,
        ((1, 1, 1), *plan.strides),
        plan.strides,
        filters=plan.features_per_stage,
        norm_name="instance",
        deep_supervision=True,
        deep_supr_num=len(plan.strides) - 1,
    )
    device.place_network(network)
    learner = begin(
        network, TRAINING, device, proximal=False, forward=lambda x: list(network(x).unbind(1))
    )
    drawn = list(batches(name, 1)) * (runs + 1)
    return losses_and_seconds(name, learner, drawn, device)[1][1:]


def peer_seconds(name: str, runs: int, python: Path) -> list[float]:
    task, plan = load_task(PLANS[name][0]), PLANS[name][1]
    told = {
        "n_channels": len(task.channels),
        "n_classes": len(task.foreground_labels) + 1,
        "patch_size": plan.patch_size,
        "batch_size": plan.batch_size,
        "strides": plan.strides,
        "kernel_sizes": plan.kernel_sizes,
        "features_per_stage": plan.features_per_stage,
        "batch_dice": plan.batch_dice,
        "runs": runs,
    }
    done = subprocess.run(
        [str(python), str(PEER_SCRIPT), json.dumps(told)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    return [float(line) for line in done.stdout.split()][1:]


def arithmetic(name: str) -> float:
    """Return the floating-point operations of one step, in 10^12."""
    network, plan = network_of(load_task(PLANS[name][0]), PLANS[name][1], 0), PLANS[name][1]
    shape = (1, network.encoder[0][0].in_channels, *plan.patch_size)  # type: ignore[union-attr,index]
    with FlopCounterMode(display=False) as counter:
        sum(stage.sum() for stage in network.train()(torch.zeros(shape))).backward()
    return counter.get_total_flops() * plan.batch_size / 1e12


def peak(device: Device) -> float:
    """Return the fastest matrix product found, in 10^12 operations a second."""
    n = 8192 if device.device.type == "cuda" else 2048
    a = torch.ones(n, n, dtype=device.dtype, device=device.device)
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds) / 1e12


def compare(name: str, runs: int, peer_python: Path | None) -> None:
    device, plan = choose_device("auto"), PLANS[name][1]
    patch = "x".join(map(str, plan.patch_size))
    print(
        f"{name}: batch {plan.batch_size}, patch {patch}, features "
        f"{plan.features_per_stage[0]} to {plan.features_per_stage[-1]}; {describe(device)}",
        flush=True,
    )
    peer = statistics.median(peer_seconds(name, runs, peer_python)) if peer_python else None
    monai = statistics.median(monai_seconds(name, device, runs))
    work, fastest = arithmetic(name), peak(device)
    with tempfile.TemporaryDirectory() as folder:
        for wanted in ("off", "on"):
            first, *steps = our_seconds(name, device, wanted, Path(folder), runs)
            ours = statistics.median(steps)
            words = "compiled" if wanted == "on" else "eager"
            line = f"  {words:8} {ours:6.3f} s, {work / ours / fastest:.0%} of the matrix peak"
            if wanted == "on":
                torch.compiler.reset()  # a new process would find on disk what this one left there
                again = our_seconds(name, device, wanted, Path(folder), 1)[0]
                line += f", first step {first:.0f} s, from the cache {again:.0f} s"
            line += f"; MONAI's DynUNet {monai:6.3f} s"
            if peer is not None:
                line += f"; nnunetv2 {peer:6.3f} s, {peer / ours:.2f} times faster"
                line += f" ({peer / (work / fastest):.2f} if the whole peak were reached)"
            print(line, flush=True)


def curves(name: str, n_steps: int) -> None:
    """Print the mean losses of two precisions, how far they are apart, and how far seeds are."""
    exact, chosen = Device(torch.device("cpu"), torch.float32), choose_device("auto")
    exact = Device(chosen.device, exact.dtype)
    found: dict[str, list[list[float]]] = {"float32": [], "chosen": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in (1, 2, 3):
            drawn = list(batches(name, n_steps, seed))
            for words, device, wanted in (("float32", exact, "off"), ("chosen", chosen, "on")):
                learner = learner_of(name, device, wanted, Path(folder), seed)
                found[words].append(losses_and_seconds(name, learner, drawn, device)[0])
    exact_curves, chosen_curves = np.array(found["float32"]), np.array(found["chosen"])
    print(f"mean loss of three seeds; {describe(chosen)}, compiled, beside float32")
    for step in range(0, n_steps, max(1, n_steps // 10)):
        mine, theirs = chosen_curves[:, step].mean(), exact_curves[:, step].mean()
        print(f"  step {step:3}  {mine:8.4f}  {theirs:8.4f}")
    apart = np.abs(chosen_curves - exact_curves).mean()
    spread = exact_curves.std(axis=0, ddof=1).mean()
    print(f"apart {apart:.4f} at the same seed; seeds spread by {spread:.4f}")


def main() -> None:
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--plan", choices=[*PLANS, "all"], default="small")
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--curves", type=int, metavar="STEPS")
    given = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)  # as the peer does
    if given.curves:
        curves("small", given.curves)
        sys.exit()
    for name in PLANS if given.plan == "all" else (given.plan,):
        compare(name, given.runs, given.peer_python)


if __name__ == "__main__":
    main()
