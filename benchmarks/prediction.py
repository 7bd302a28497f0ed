"""Seconds for predicting a four-channel case, ours and nnunetv2's, with the same trained weights.

Usage: python benchmarks/prediction.py [--peer-python PEER/bin/python] [--shape 155 240 240]
[--patch 128] [--features 32] [--steps 100] [--no-mirroring] [--runs 1]

PEER: python3 -m venv PEER; PEER/bin/pip install torch==2.13.0; PEER/bin/pip install nnunetv2==2.8.1

A network of the BraTS plan learns some synthetic tumours first, so that labels mean something; then
both predict another one with it, in the same tiles and mirrorings, in the same run. Labels are
compared with the peer's and with our own in float32. Seconds are the median of the runs, without
reading, preparing and writing; the peer runs on as many threads as we do.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client.device import Device, choose_device, describe
from client.prediction.predict import Averaging, decide, predict
from client.prediction.tiles import tiles
from client.training.loss import segmentation_loss
from common.axes import Image, LabelMap
from common.network import initial_weights, load_weights, weights_of
from common.networks.unet import UNet
from common.planning.plan import Configuration
from common.task import load_task
from simulation.phantoms import PhantomSite, PhantomStudy, draw_phantom

PEER_SCRIPT = Path(__file__).with_name("prediction_nnunet.py")
TASK = load_task("brats-2021")
N_TRAINING_CASES = 4
TRAINING_PATCH = 64  # as much as teaches the network something in a few minutes


@dataclass(frozen=True)
class Case:
    """An image with its true labels."""

    image: Image
    labels: LabelMap


def configuration(patch: int, features: int) -> Configuration:
    n_strides = int(np.log2(patch // 4))
    return Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(138.0, 170.0, 138.0),
        patch_size=(patch, patch, patch),
        batch_size=2,
        strides=((2, 2, 2),) * n_strides,
        kernel_sizes=((3, 3, 3),) * (n_strides + 1),
        features_per_stage=tuple(min(320, features * 2**i) for i in range(n_strides + 1)),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )


def phantom(shape: tuple[int, int, int], number: int) -> Case:
    site = PhantomSite(
        name="one",
        n_cases=10,
        spacing_mm=(1.0, 1.0, 1.0),
        gain=(400.0, 450.0, 500.0, 300.0),
        gamma=(1.0, 1.0, 1.0, 1.0),
        noise_fraction=0.03,
        bias_fraction=0.05,
        tumour_radius_mm=min(28.0, min(shape) / 6),
        tumour_radius_spread=0.2,
        without_enhancing_fraction=0.0,
    )
    z, y, x = shape
    study = PhantomStudy(seed=1, field_of_view_mm=(float(z), float(y), float(x)), sites=(site,))
    drawn = draw_phantom(study, site, number)
    mean = drawn.image.mean(axis=(1, 2, 3), keepdims=True)
    std = drawn.image.std(axis=(1, 2, 3), keepdims=True)
    return Case((drawn.image - mean) / std, drawn.labels)


def trained(plan: Configuration, steps: int, device: Device) -> nn.Module:
    network = UNet(4, 4, plan, "instance", deep_supervision=False)
    load_weights(network, initial_weights(network, 0))
    device.place_network(network)
    cases = [phantom((104, 120, 104), 1 + number) for number in range(N_TRAINING_CASES)]
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rng = np.random.default_rng(1)
    for step in range(steps):
        image, labels = random_patch(cases[step % len(cases)], rng)
        with device.autocast():
            logits = network(device.place(image))
        loss = segmentation_loss(logits, labels.to(device.device), TASK, "labels", batch_dice=False)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
    print(f"trained {steps} steps, loss {loss.item():.3f}" if steps else "not trained")
    return network


def random_patch(case: Case, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a patch with a voxel of tumour in the middle, mirrored at random."""
    inside = np.argwhere(case.labels > 0)
    centre = inside[rng.integers(len(inside))]
    room = np.array(case.labels.shape) - TRAINING_PATCH
    start = np.clip(centre - TRAINING_PATCH // 2, 0, room)
    place = tuple(slice(first, first + TRAINING_PATCH) for first in start)
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    image = np.flip(case.image[(slice(None), *place)], [1 + axis for axis in flips])
    labels = np.flip(case.labels[place], flips)
    return (
        torch.from_numpy(np.ascontiguousarray(image))[None],
        torch.from_numpy(np.ascontiguousarray(labels))[None],
    )


def ours(
    network: nn.Module,
    image: Image,
    plan: Configuration,
    device: Device,
    averaging: Averaging,
    *,
    mirroring: bool,
    runs: int,
) -> tuple[float, LabelMap]:
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        found = predict(
            network,
            image,
            plan.patch_size,
            "labels",
            device,
            mirroring=mirroring,
            averaging=averaging,
        )
        labels = decide(found, TASK, "labels")
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), labels


def peers(
    network: nn.Module,
    image: Image,
    plan: Configuration,
    python: Path,
    *,
    mirroring: bool,
    runs: int,
) -> tuple[float, LabelMap]:
    with tempfile.TemporaryDirectory() as home:
        np.savez(f"{home}/weights.npz", **weights_of(network))
        np.save(f"{home}/image.npy", image)
        wanted = {
            "patch_size": plan.patch_size,
            "strides": plan.strides,
            "kernel_sizes": plan.kernel_sizes,
            "features_per_stage": plan.features_per_stage,
            "n_channels": len(image),
            "n_classes": 4,
            "mirroring": mirroring,
            "runs": runs,
            "n_threads": torch.get_num_threads(),
        }
        environment = {"nnUNet_raw": home, "nnUNet_preprocessed": home, "nnUNet_results": home}
        done = subprocess.run(
            [str(python), str(PEER_SCRIPT), json.dumps(wanted), home],
            env={**os.environ, **environment},
            check=True,
            stdout=subprocess.PIPE,
        )
        classes: NDArray[np.int64] = np.load(f"{home}/classes.npy")
    values = np.array((0, *TASK.foreground_labels), np.uint8)
    lines = done.stdout.decode().splitlines()
    return statistics.median(float(line) for line in lines if line[:1].isdigit()), values[classes]


def compare(name: str, seconds: float, labels: LabelMap, reference: LabelMap, truth: LabelMap):
    """Print one line; Dice is that of the whole tumour."""
    same = float(np.mean(labels == reference))
    foreground = (labels > 0) | (reference > 0)
    inside = float(np.mean(labels[foreground] == reference[foreground])) if foreground.any() else 1
    both = np.count_nonzero((labels > 0) & (truth > 0))
    dice = 2 * both / max(1, np.count_nonzero(labels > 0) + np.count_nonzero(truth > 0))
    print(
        f"{name:42} {seconds:8.2f} s   same labels {100 * same:.4f} % of voxels, "
        f"{100 * inside:.3f} % of those in a tumour   Dice {dice:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--shape", type=int, nargs=3, default=(155, 240, 240))
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--no-mirroring", action="store_true")
    given = parser.parse_args()
    plan, mirroring = configuration(given.patch, given.features), not given.no_mirroring
    fast = choose_device("auto")
    exact = Device(fast.device, torch.float32)
    network = trained(plan, given.steps, fast)
    z, y, x = given.shape
    case = phantom((z, y, x), 0)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    n_tiles = len(list(tiles((z, y, x), plan.patch_size)))
    print(
        f"{describe(fast)}; {n_parameters / 1e6:.2f} M parameters, {n_tiles} tiles of "
        f"{given.patch}^3, {8 if mirroring else 1} mirrorings"
    )
    results: dict[str, tuple[float, LabelMap]] = {}
    if given.peer_python:
        results["nnunetv2, float32"] = peers(
            network, case.image, plan, given.peer_python, mirroring=mirroring, runs=given.runs
        )
    for device, averaging in ((exact, "logits"), (fast, "logits"), (fast, "probabilities")):
        name = f"ours, {str(device.dtype).removeprefix('torch.')}, mean of {averaging}"
        results[name] = ours(
            network, case.image, plan, device, averaging, mirroring=mirroring, runs=given.runs
        )
    first, (reference_s, reference) = next(iter(results.items()))
    for name, (seconds, labels) in results.items():
        compare(name, seconds, labels, reference, case.labels)
    for name, (seconds, _) in results.items():
        print(f"{name}: {reference_s / seconds:.2f} times as fast as {first}")


if __name__ == "__main__":
    main()
