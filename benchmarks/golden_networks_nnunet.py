"""Run by nnunetv2's own interpreter: write what its networks answer for random weights.

Usage: python benchmarks/golden_networks_nnunet.py tests/golden/data. The networks are tiny, of
dynamic_network_architectures 0.4.4; weights have half precision, so that storing rounds nothing.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

TOPOLOGIES = {
    2: {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]},
    3: {
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    },
}
PATCHES = {2: (8, 12), 3: (4, 8, 12)}


def network_of(kind: str, n_axes: int) -> nn.Module:
    plain = kind == "plain"
    blocks = "n_conv_per_stage" if plain else "n_blocks_per_stage"
    return (PlainConvUNet if plain else ResidualEncoderUNet)(
        input_channels=2,
        n_stages=3,
        features_per_stage=[4, 4, 6],
        conv_op=nn.Conv2d if n_axes == 2 else nn.Conv3d,
        **TOPOLOGIES[n_axes],
        **{blocks: [2, 2, 2] if plain else [1, 3, 4]},
        num_classes=3,
        n_conv_per_stage_decoder=[2, 2] if plain else [1, 1],
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if n_axes == 2 else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def golden(kind: str, n_axes: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    network = network_of(kind, n_axes)
    found = {}
    for name, tensor in network.state_dict().items():
        if "all_modules" not in name and not name.startswith("decoder.encoder."):  # second names
            found[name] = (0.3 * generator.standard_normal(tensor.shape)).astype(np.float16)
    network.load_state_dict(
        {n: torch.from_numpy(w).float() for n, w in found.items()}, strict=False
    )
    image = generator.standard_normal((2, 2, *PATCHES[n_axes])).astype(np.float16)
    with torch.no_grad():
        logits = network(torch.from_numpy(image).float())
    answers = {f"logits.{stage}": one.numpy() for stage, one in enumerate(logits)}
    return {**{f"weights.{n}": w for n, w in found.items()}, "image": image, **answers}


def main() -> None:
    for kind, n_axes in (("plain", 2), ("plain", 3), ("resenc", 3)):
        np.savez_compressed(
            Path(sys.argv[1]) / f"network-{kind}-{n_axes}d.npz", **golden(kind, n_axes)
        )


if __name__ == "__main__":
    main()
