"""Seconds per training step of our U-Net and of MONAI's DynUNet, in the same run.

Usage: python benchmarks/training_step.py [--runs 5]. Prints the median of the runs, after one
warm-up, for float32 and bfloat16 and both memory layouts, and the ratio to the peer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from client.device import DTYPES
from client.loss import dice_and_entropy, segmentation_loss
from common.config import Model
from common.network import build_network, initial_weights, load_weights
from common.plan import Configuration
from common.task import load_task

TASK = load_task("hippocampus")
PLAN = Configuration(  # Hippocampus, batch and features as in configs/hippocampus.toml
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(36.0, 50.0, 35.0),
    patch_size=(40, 56, 40),
    batch_size=4,
    strides=((2, 2, 2),) * 3,
    kernel_sizes=((3, 3, 3),) * 4,
    features_per_stage=(16, 32, 64, 128),
    batch_dice=False,
    deep_supervision_weights=(2 / 3, 1 / 3, 0.0),
)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last_3d}


def ours(norm: str) -> nn.Module:
    model = Model(
        configuration="3d_fullres",
        norm=norm,  # type: ignore[arg-type]
        batch_norm="local-statistics",
        output="labels",
        base_features=16,
        deep_supervision=True,
    )
    network = build_network(TASK, PLAN, model)
    load_weights(network, initial_weights(network, 0))
    return network


def peer() -> nn.Module:
    return DynUNet(
        3,
        1,
        3,
        PLAN.kernel_sizes,
        ((1, 1, 1), *PLAN.strides),
        PLAN.strides,
        filters=PLAN.features_per_stage,
        norm_name="instance",
        deep_supervision=True,
        deep_supr_num=2,
    )


def our_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    return segmentation_loss(
        logits, labels, TASK, "labels", batch_dice=False, supervision=PLAN.deep_supervision_weights
    )


def peer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the peer the same loss on each head, which MONAI returns at full resolution."""
    weights = (4 / 7, 2 / 7, 1 / 7)
    heads = zip(weights, logits.unbind(1), strict=True)
    return sum(  # type: ignore[return-value]
        weight * dice_and_entropy(head.float(), labels.long(), batch_dice=False)
        for weight, head in heads
    )


def median_step_s(
    network: nn.Module,
    loss_of: Callable[..., Tensor],
    dtype: torch.dtype,
    layout: torch.memory_format,
    runs: int,
) -> float:
    torch.manual_seed(0)
    network = network.to(memory_format=layout).train()
    image = torch.randn(PLAN.batch_size, 1, *PLAN.patch_size).to(memory_format=layout)
    labels = torch.randint(0, 3, (PLAN.batch_size, *PLAN.patch_size), dtype=torch.uint8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            logits = network(image)
        loss_of(logits, labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"batch 4, patch 40x56x40, 16 features, {torch.get_num_threads()} threads, s per step")
    for name in ("float32", "bfloat16"):
        for words, layout in LAYOUTS.items():
            dtype = DTYPES[name]
            monai = median_step_s(peer(), peer_loss, dtype, layout, runs)
            for norm in ("instance", "batch"):
                mine = median_step_s(ours(norm), our_loss, dtype, layout, runs)
                print(
                    f"{name:9} {words:13} ours ({norm:8}) {mine:6.3f}   "
                    f"MONAI DynUNet (instance) {monai:6.3f}   ratio {mine / monai:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
