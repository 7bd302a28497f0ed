"""U-Nets with residual encoders and plain decoders of one convolution per stage.

Sources: Isensee and Maier-Hein 2019 (arXiv 1908.02182, KiTS 2019) for `resunet` and
`preact-resunet`; Isensee et al. 2024 (arXiv 2404.09556, nnU-Net's "ResEnc") for `resenc-unet`.
Where they are silent, the authors' published code decides.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from common.networks.blueprint import Blueprint
from common.networks.layers import Layers
from common.networks.unet import (
    LEAKY_SLOPE,
    Block,
    Blocks,
    Stage,
    convolution_norm_act,
    with_blocks,
)

RESENC_BLOCKS = (1, 3, 4, 6)  # per stage, the last for all that follow; Isensee et al. 2024


class Residual(nn.Module):
    """Two convolutions beside a way around them: the sum of both, then the activation."""

    def __init__(self, trunk: nn.Module, way_around: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.way_around = way_around
        self.act = act

    def forward(self, image: Tensor) -> Tensor:
        """Return an image of the trunk's shape."""
        total: Tensor = self.act(self.trunk(image) + self.way_around(image))
        return total


class PreActivated(nn.Module):
    """Norm and activation come before each convolution; the sum is passed on as it is."""

    def __init__(self, layers: Layers, stage: Stage) -> None:
        super().__init__()
        self.before = nn.Sequential(layers.norm(stage.n_in), nn.ReLU(inplace=True))
        self.trunk = nn.Sequential(
            layers.convolution(stage.n_in, stage.n_out, stage.kernel, stage.stride),
            layers.norm(stage.n_out),
            nn.ReLU(inplace=True),
            layers.convolution(stage.n_out, stage.n_out, stage.kernel),
        )
        self.way_around = (
            layers.convolution(stage.n_in, stage.n_out, 1, stage.stride, bias=False)
            if _changes_shape(stage)
            else None
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return an image of the stage's shape."""
        prepared = self.before(image)
        around = image if self.way_around is None else self.way_around(prepared)
        total: Tensor = self.trunk(prepared) + around
        return total


def resunet(wanted: Blueprint) -> nn.Module:
    """Build the winner of KiTS 2019: one block at full resolution, one more per stage."""
    encoder = _encoder(_convolution_norm_relu, _rectified, lambda level: level + 1)
    return with_blocks(wanted, Blocks(encoder=encoder, decoder=_convolution_norm_relu))


def preact_resunet(wanted: Blueprint) -> nn.Module:
    """Build the same of pre-activated blocks, whose sums are normalised on the way across."""
    encoder = _encoder(_convolution, PreActivated, lambda level: level + 1)
    blocks = Blocks(encoder=encoder, decoder=_convolution_norm_relu, skip=_norm_relu)
    return with_blocks(wanted, blocks)


def resenc_unet(wanted: Blueprint) -> nn.Module:
    """Build nnU-Net's residual encoder U-Net, for the plans of the rules v2-resenc-*."""
    last = len(RESENC_BLOCKS) - 1
    encoder = _encoder(_convolution_norm_leaky, _mean_pooled, lambda n: RESENC_BLOCKS[min(n, last)])
    return with_blocks(wanted, Blocks(encoder=encoder, decoder=_convolution_norm_leaky))


def _encoder(stem: Block, block: Block, n_blocks: Callable[[int], int]) -> Block:
    """Return encoder stages of so many blocks per level; the stem comes before the first."""

    def build(layers: Layers, stage: Stage) -> nn.Module:
        modules = []
        if stage.level == 0:
            modules.append(stem(layers, stage))
            stage = replace(stage, n_in=stage.n_out)
        modules.append(block(layers, stage))
        same = replace(stage, n_in=stage.n_out, stride=(1,) * layers.n_axes)
        modules += [block(layers, same) for _ in range(n_blocks(stage.level) - 1)]
        return nn.Sequential(*modules)

    return build


def _rectified(layers: Layers, stage: Stage) -> nn.Module:
    """Return the block of KiTS 2019; its way around is a strided convolution."""
    around = [
        layers.convolution(stage.n_in, stage.n_out, 1, stage.stride, bias=False),
        layers.norm(stage.n_out),
    ]
    return Residual(
        _trunk(layers, stage, nn.ReLU(inplace=True)),
        nn.Sequential(*around) if _changes_shape(stage) else nn.Identity(),
        nn.ReLU(inplace=True),
    )


def _mean_pooled(layers: Layers, stage: Stage) -> nn.Module:
    """Return nnU-Net's block (ResNet-D, He et al. 2019), which starts as its way around alone."""
    around: list[nn.Module] = []
    if any(step > 1 for step in stage.stride):
        around.append(layers.mean_pool(stage.stride))
    if stage.n_in != stage.n_out:
        around.append(layers.convolution(stage.n_in, stage.n_out, bias=False))
        around.append(layers.norm(stage.n_out))
    trunk = _trunk(layers, stage, nn.LeakyReLU(LEAKY_SLOPE, inplace=True))
    for parameter in trunk[-1].parameters():  # scale and shift of the last norm
        nn.init.zeros_(parameter)
    return Residual(trunk, nn.Sequential(*around), nn.LeakyReLU(LEAKY_SLOPE, inplace=True))


def _trunk(layers: Layers, stage: Stage, act: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        layers.convolution(stage.n_in, stage.n_out, stage.kernel, stage.stride),
        layers.norm(stage.n_out),
        act,
        layers.convolution(stage.n_out, stage.n_out, stage.kernel),
        layers.norm(stage.n_out),
    )


def _changes_shape(stage: Stage) -> bool:
    return stage.n_in != stage.n_out or any(step > 1 for step in stage.stride)


def _convolution(layers: Layers, stage: Stage) -> nn.Module:
    return layers.convolution(stage.n_in, stage.n_out, stage.kernel)


def _convolution_norm_leaky(layers: Layers, stage: Stage) -> nn.Module:
    return nn.Sequential(*convolution_norm_act(layers, stage))


def _convolution_norm_relu(layers: Layers, stage: Stage) -> nn.Module:
    return nn.Sequential(_convolution(layers, stage), *_norm_relu(layers, stage))


def _norm_relu(layers: Layers, stage: Stage) -> nn.Sequential:
    return nn.Sequential(layers.norm(stage.n_out), nn.ReLU(inplace=True))
