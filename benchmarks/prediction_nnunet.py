"""Run by nnunetv2's own interpreter, for `prediction.py`: prints seconds, one line per run.

Network and predictor are nnunetv2's; only the plan is given, as JSON, and the weights, by the names
of ours.
"""

import json
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn


def network_of(plan: dict, weights: dict) -> nn.Module:
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
        deep_supervision=False,
    )
    own = dict(network.named_parameters())
    left = {name for name in own if not re.match(r"decoder\.seg_layers", name)}
    with torch.no_grad():
        for name, values in weights.items():
            theirs = renamed(name, n_stages)
            own[theirs].copy_(torch.from_numpy(values))
            left.discard(theirs)
    if left:
        raise ValueError(f"weights: expected those of every layer, found none for {sorted(left)}")
    return network


def renamed(name: str, n_stages: int) -> str:
    """Return nnunetv2's name of one of our tensors."""
    part, index, *rest = name.split(".")
    if part == "up":
        return f"decoder.transpconvs.{index}.{rest[-1]}"
    if part == "heads":  # without deep supervision there is one, of full resolution
        return f"decoder.seg_layers.{n_stages - 2}.{rest[-1]}"
    number, kind = divmod(int(rest[0]), 3)  # convolution, norm, activation; twice
    layer = f"convs.{number}.{('conv', 'norm')[kind]}.{rest[-1]}"
    return (
        f"encoder.stages.{index}.0.{layer}"
        if part == "encoder"
        else f"decoder.stages.{index}.{layer}"
    )


def predictor_of(plan: dict, network: nn.Module) -> nnUNetPredictor:
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=plan["mirroring"],
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=plan["patch_size"])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=plan["n_classes"])
    predictor.allowed_mirroring_axes = (0, 1, 2)
    return predictor


def main() -> None:
    plan, home = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(plan["n_threads"])
    with np.load(home / "weights.npz") as weights:
        predictor = predictor_of(plan, network_of(plan, dict(weights)))
    image = torch.from_numpy(np.load(home / "image.npy"))
    for _ in range(plan["runs"]):
        began = time.perf_counter()
        logits = predictor.predict_sliding_window_return_logits(image)
        classes = logits.float().argmax(0)
        print(time.perf_counter() - began, flush=True)
    np.save(home / "classes.npy", classes.numpy())


if __name__ == "__main__":
    main()
