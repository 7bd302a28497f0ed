"""The 2D patch networks of a study on IBSR18: plain, residual and dense blocks on five levels.

Source: the study's report: five levels, batch norm in the encoder only, dropout 0.4, softmax. It
does not say where the dropout is; here it ends every encoder stage. The plan gives patch and
width, not the levels.
"""

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from common.networks.blueprint import Blueprint
from common.networks.layers import Layers
from common.networks.unet import Block, Blocks, Stage, with_blocks
from common.planning.plan import Configuration2d

N_LEVELS = 5  # report
DIVISOR = 2 ** (N_LEVELS - 1)
DROPOUT = 0.4  # report


class _Block(Protocol):
    def __call__(self, layers: Layers, stage: Stage, *, norm: bool) -> nn.Module: ...


class Residual2d(nn.Module):
    """Two convolutions, and a 1x1 convolution around them."""

    def __init__(self, layers: Layers, stage: Stage, *, norm: bool) -> None:
        super().__init__()
        self.first = _convolution(layers, stage.n_in, stage.n_out, norm=norm)
        self.second = _convolution(layers, stage.n_out, stage.n_out, norm=norm)[:-1]
        self.way_around = layers.convolution(stage.n_in, stage.n_out)

    def forward(self, image: Tensor) -> Tensor:
        """Return an image of the stage's width."""
        return torch.relu(self.second(self.first(image)) + self.way_around(image))


class Dense2d(nn.Module):
    """Two convolutions that see everything before them, and a 1x1 convolution over all."""

    def __init__(self, layers: Layers, stage: Stage, *, norm: bool) -> None:
        super().__init__()
        n_in, width = stage.n_in, stage.n_out
        self.first = _convolution(layers, n_in, width, norm=norm)
        self.second = _convolution(layers, n_in + width, width, norm=norm)
        self.merge = layers.convolution(n_in + 2 * width, width)

    def forward(self, image: Tensor) -> Tensor:
        """Return an image of the stage's width."""
        seen = torch.cat((image, self.first(image)), dim=1)
        merged: Tensor = self.merge(torch.cat((seen, self.second(seen)), dim=1))
        return merged


def unet2d(wanted: Blueprint) -> nn.Module:
    """Build the network of plain blocks."""
    return with_blocks(_five_levels(wanted), Blocks(_down(_plain), _up(_plain)))


def resunet2d(wanted: Blueprint) -> nn.Module:
    """Build the network of residual blocks."""
    return with_blocks(_five_levels(wanted), Blocks(_down(Residual2d), _up(Residual2d)))


def denseunet2d(wanted: Blueprint) -> nn.Module:
    """Build the network of dense blocks."""
    return with_blocks(_five_levels(wanted), Blocks(_down(Dense2d), _up(Dense2d)))


def _five_levels(wanted: Blueprint) -> Blueprint:
    if not isinstance(wanted.plan, Configuration2d):
        raise TypeError("the table lets slices only through")
    plan = replace(
        wanted.plan,
        strides=((2, 2),) * (N_LEVELS - 1),
        kernel_sizes=((3, 3),) * N_LEVELS,
        features_per_stage=tuple(wanted.base_features * 2**level for level in range(N_LEVELS)),
    )
    return replace(wanted, plan=plan)


def _down(block: _Block) -> Block:
    """Return an encoder stage: the strongest of four, then the block with norms, then dropout."""

    def build(layers: Layers, stage: Stage) -> nn.Module:
        halved = [layers.max_pool(stage.stride)] if stage.level else []
        return nn.Sequential(*halved, block(layers, stage, norm=True), nn.Dropout(DROPOUT))

    return build


def _up(block: _Block) -> Block:
    return lambda layers, stage: block(layers, stage, norm=False)


def _plain(layers: Layers, stage: Stage, *, norm: bool) -> nn.Module:
    first = _convolution(layers, stage.n_in, stage.n_out, norm=norm)
    return nn.Sequential(*first, *_convolution(layers, stage.n_out, stage.n_out, norm=norm))


def _convolution(layers: Layers, n_in: int, n_out: int, *, norm: bool) -> nn.Sequential:
    norms = [layers.norm(n_out)] if norm else []
    return nn.Sequential(layers.convolution(n_in, n_out, 3), *norms, nn.ReLU(inplace=True))
