"""The U-Net whose stages, strides and kernels come from the plan; in 2D and in 3D.

Source: Isensee et al. 2021, and the published architecture constants: two convolutions per
stage, strided convolutions down, transposed convolutions up, leaky ReLU of slope 0.01, a 1x1x1
head on every decoder stage. Other families exchange its blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.config import Norm
from common.networks.blueprint import Blueprint
from common.networks.layers import Layers
from common.planning.plan import AnyConfiguration

LEAKY_SLOPE = 0.01  # nnU-Net


@dataclass(frozen=True)
class Stage:
    """One resolution of a U-Net, on its way down or up."""

    level: int
    """0 is full resolution."""
    n_in: int
    n_out: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    """From the stage above; 1 on the way up."""


Block = Callable[[Layers, Stage], nn.Module]


def convolution_norm_act(layers: Layers, stage: Stage) -> list[nn.Module]:
    """Return convolution, norm and leaky ReLU."""
    return [
        layers.convolution(stage.n_in, stage.n_out, stage.kernel, stage.stride),
        layers.norm(stage.n_out),
        nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    ]


def two_convolutions(layers: Layers, stage: Stage) -> nn.Module:
    """Return two times convolution, norm, leaky ReLU; the first convolution may be strided."""
    second = Stage(stage.level, stage.n_out, stage.n_out, stage.kernel, (1,) * layers.n_axes)
    return nn.Sequential(
        *convolution_norm_act(layers, stage), *convolution_norm_act(layers, second)
    )


def unchanged(layers: Layers, stage: Stage) -> nn.Module:  # noqa: ARG001 - a block like others
    """Return what passes an image on."""
    return nn.Identity()


@dataclass(frozen=True)
class Blocks:
    """What a U-Net is made of."""

    encoder: Block = two_convolutions
    decoder: Block = two_convolutions
    skip: Block = unchanged
    """Between an encoder stage and the decoder stage of the same resolution."""


class UNet(nn.Module):
    """A U-Net whose topology comes from the plan.

    In training mode with deep supervision the forward pass returns the logits of all decoder
    stages, finest first, otherwise a list with the finest only; each has the axes
    (batch, output, [z,] y, x).
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        plan: AnyConfiguration,
        norm: Norm,
        *,
        deep_supervision: bool,
        blocks: Blocks = Blocks(),
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        layers = Layers(len(plan.patch_size), norm)
        down = _way_down(n_in, plan)
        self.encoder = nn.ModuleList(blocks.encoder(layers, stage) for stage in down)
        self.skips = nn.ModuleList(blocks.skip(layers, stage) for stage in down[:-1])
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.heads = nn.ModuleList()
        for above, below in reversed(list(pairwise(down))):
            width, ones = above.n_out, (1,) * layers.n_axes
            merged = Stage(above.level, 2 * width, width, above.kernel, ones)
            self.up.append(layers.up(below.n_out, width, below.stride))
            self.decoder.append(blocks.decoder(layers, merged))
            if deep_supervision or above.level == 0:
                self.heads.append(layers.convolution(width, n_out))
        if not plan.strides:  # images of a few voxels: one stage and its head
            self.heads.append(layers.convolution(down[0].n_out, n_out))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return logits, finest stage first, for an image (batch, channel, [z,] y, x)."""
        skips: list[Tensor] = []
        for stage in self.encoder:
            image = stage(image)
            skips.append(image)
        skips.pop()
        stages: list[Tensor] = []
        ways = zip(self.up, reversed(self.skips), self.decoder, strict=True)
        for up, skip, decoder in ways:
            image = decoder(torch.cat((up(image), skip(skips.pop())), dim=1))
            stages.append(image)
        if not (self.training and self.deep_supervision and stages):
            return [self.heads[-1](image)]
        pairs = zip(self.heads, stages, strict=True)
        return [head(stage) for head, stage in pairs][::-1]


def unet(wanted: Blueprint) -> nn.Module:
    """Build nnU-Net's plain U-Net."""
    return with_blocks(wanted, Blocks())


def with_blocks(wanted: Blueprint, blocks: Blocks) -> nn.Module:
    """Build a U-Net of other blocks, in the plan's topology."""
    return UNet(
        wanted.n_inputs,
        wanted.n_outputs,
        wanted.plan,
        wanted.norm,
        deep_supervision=wanted.deep_supervision,
        blocks=blocks,
    )


def _way_down(n_in: int, plan: AnyConfiguration) -> list[Stage]:
    features = plan.features_per_stage
    inputs = (n_in, *features[:-1])
    strides: tuple[tuple[int, ...], ...] = ((1,) * len(plan.patch_size), *plan.strides)
    rows = zip(inputs, features, plan.kernel_sizes, strides, strict=True)
    return [Stage(level, *row) for level, row in enumerate(rows)]
