"""Run by nnunetv2's own interpreter, for `training_step.py`: prints seconds, one line per step.

Network, loss, optimiser and step are nnunetv2's; only the plan is given, as JSON.
"""

import json
import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


def network_of(plan: dict) -> nn.Module:
    n_stages = len(plan["features_per_stage"])
    network = PlainConvUNet(
        input_channels=plan["n_channels"],
        n_stages=n_stages,
        features_per_stage=plan["features_per_stage"],
        conv_op=nn.Conv3d,
        kernel_sizes=plan["kernel_sizes"],
        strides=[[1, 1, 1], *plan["strides"]],
        n_conv_per_stage=[2] * n_stages,
        num_classes=plan["n_classes"],
        n_conv_per_stage_decoder=[2] * (n_stages - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    network.apply(InitWeights_He(1e-2))
    return network


def loss_of(plan: dict) -> nn.Module:
    dice = {"batch_dice": plan["batch_dice"], "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    weights = np.array([1 / 2**stage for stage in range(len(plan["strides"]))])
    weights[-1] = 0
    return DeepSupervisionWrapper(loss, weights / weights.sum())


def batch_of(plan: dict) -> dict:
    patch, batch_size = plan["patch_size"], plan["batch_size"]
    labels = torch.randint(0, plan["n_classes"], (batch_size, 1, *patch), dtype=torch.int16)
    targets = [labels]
    for stride in plan["strides"][:-1]:
        a, b, c = stride
        targets.append(targets[-1][:, :, ::a, ::b, ::c].contiguous())
    return {"data": torch.randn(batch_size, plan["n_channels"], *patch), "target": targets}


def main() -> None:
    plan = json.loads(sys.argv[1])
    torch.set_num_threads(os.cpu_count() or 1)  # as its own entry point does
    torch.manual_seed(0)
    network = network_of(plan).train()
    trainer = SimpleNamespace(
        network=network,
        loss=loss_of(plan),
        optimizer=torch.optim.SGD(
            network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True
        ),
        device=torch.device("cpu"),
        grad_scaler=None,
    )
    batch = batch_of(plan)
    for _ in range(plan["runs"] + 1):
        began = time.perf_counter()
        nnUNetTrainer.train_step(trainer, batch)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
