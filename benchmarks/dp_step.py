"""Seconds per step of DP-SGD: one patient at a time, or opacus's gradients of whole batches.

Usage: python benchmarks/dp_step.py [--patients 4] [--runs 3] [--noise]

Both clip every patient's gradient and add up what is left; the same patches and weights. Beside
them stands an ordinary step on all patches at once. `processor` is the time of all threads
together, which other work on the machine changes less. That both give the same sum is shown by
`tests/client/privacy/test_per_sample.py`.

`--noise` measures the noise of 31 million parameters instead.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from client.batches.patches import Batch
from client.device import Device, choose_device, describe
from client.privacy.clipping import add_clipped
from client.privacy.per_sample import PerSample
from client.privacy.private_step import Mechanism, clipped_sum
from client.training.loss import segmentation_loss
from client.training.optimise import trained
from common.network import UNet, initial_weights, load_weights
from common.planning.plan import Configuration
from common.privacy.noise import secure_normals
from common.task import load_task

TASK = load_task("hippocampus")
WEIGHTS = (4 / 7, 2 / 7, 1 / 7)
PATCHES = ((16, 16, 16), (40, 56, 40))  # a small one, and that of Hippocampus
N_PARAMETERS = 31_000_000
MECHANISM = Mechanism(clip_norm=1.0, noise_multiplier=1.0, expected_patients=4, patches_at_once=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--noise", action="store_true")
    chosen, device = parser.parse_args(), choose_device("auto")
    print(describe(device))
    if chosen.noise:
        wall, processor = seconds(
            lambda: secure_normals(N_PARAMETERS, device.device), device, chosen.runs
        )
        per_value = wall / N_PARAMETERS * 1e9
        print(f"{per_value:.0f} ns per value, {wall:.2f} s, processor {processor:.2f} s")
        return
    for patch in PATCHES:
        for features in (8, 16):
            compare(patch, features, device, chosen.patients, chosen.runs)


def compare(patch: tuple[int, int, int], features: int, device: Device, n: int, runs: int) -> None:
    network = device.place_network(built(patch, features)).train()
    patients = drawn(patch, n)
    ways: dict[str, Callable[[], list[Tensor]]] = {
        "ordinary": partial(ordinary, network, patients, device),
        "by patient": partial(by_patient, network, patients, device),
        "by batch": partial(by_batch, network, patients, device),
    }
    for name, way in ways.items():
        way()
        wall, processor = seconds(way, device, runs)
        print(f"{patch} {features} features, {n} patients, {name}: {wall:.2f} s", end="")
        print(f", processor {processor:.2f} s", flush=True)


def built(patch: tuple[int, int, int], features: int) -> UNet:
    plan = Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(36.0, 50.0, 35.0),
        patch_size=patch,
        batch_size=9,
        strides=((2, 2, 2),) * 3,
        kernel_sizes=((3, 3, 3),) * 4,
        features_per_stage=tuple(features * 2**stage for stage in range(4)),
        batch_dice=False,
        deep_supervision_weights=WEIGHTS,
    )
    network = UNet(len(TASK.channels), 3, plan, "instance", deep_supervision=True)
    load_weights(network, initial_weights(network, 1))
    return network


def drawn(patch: tuple[int, int, int], n: int) -> list[Batch]:
    rng = np.random.default_rng(1)
    return [
        Batch(
            rng.standard_normal((1, len(TASK.channels), *patch)).astype(np.float32),
            rng.integers(0, 3, (1, *patch)).astype(np.uint8),
        )
        for _ in range(n)
    ]


def ordinary(network: nn.Module, patients: list[Batch], device: Device) -> list[Tensor]:
    network.zero_grad(set_to_none=True)
    loss_of(network, device, joined(patients)).backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in trained(network) if parameter.grad is not None]


def by_patient(network: nn.Module, patients: list[Batch], device: Device) -> list[Tensor]:
    loss = partial(loss_of, network, device)
    return clipped_sum(trained(network), patients, loss, MECHANISM)[0]


def by_batch(network: nn.Module, patients: list[Batch], device: Device) -> list[Tensor]:
    engine, batch = PerSample(network), joined(patients)
    found = engine.gradients(lambda: loss_of(network, device, batch) * len(patients))
    engine.close()
    total = [torch.zeros_like(parameter).detach() for parameter in trained(network)]
    for patient in range(len(patients)):
        one = [None if gradient is None else gradient[patient] for gradient in found]
        add_clipped(total, one, MECHANISM.clip_norm)
    return total


def joined(patients: list[Batch]) -> Batch:
    return Batch(
        np.concatenate([patient.images for patient in patients]),
        np.concatenate([patient.labels for patient in patients]),
    )


def loss_of(network: nn.Module, device: Device, batch: Batch) -> Tensor:
    images = device.place(torch.from_numpy(batch.images))
    labels = torch.from_numpy(batch.labels).to(device.device)
    with device.autocast():
        stages = network(images)
    return segmentation_loss(stages, labels, TASK, "labels", batch_dice=False, supervision=WEIGHTS)


def seconds(work: Callable[[], object], device: Device, runs: int) -> tuple[float, float]:
    """Return the least wall-clock and processor time of some runs."""
    walls, processors = [], []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        if device.device.type == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return min(walls), min(processors)


if __name__ == "__main__":
    main()
