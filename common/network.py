"""The plain U-Net of nnU-Net, built from a plan's configuration.

Source: Isensee et al. 2021, and the published architecture constants: two convolutions per
stage, strided convolutions down, transposed convolutions up, leaky ReLU of slope 0.01, a 1x1x1
head on every decoder stage, He initialisation.
"""

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn

from common.axes import Weights
from common.config import Model, Norm
from common.errors import MessageError
from common.plan import Axis3, Configuration
from common.task import Task

LEAKY_SLOPE = 0.01  # nnU-Net
NORM_EPSILON = 1e-5  # nnU-Net
GROUPS = 8  # group norm: divides every published feature count


class ConvBlock(nn.Sequential):
    """Two times convolution, norm, leaky ReLU; the first convolution may be strided."""

    def __init__(self, n_in: int, n_out: int, kernel: Axis3, stride: Axis3, norm: Norm) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(
            nn.Conv3d(n_in, n_out, kernel, stride, padding),
            norm_layer(norm, n_out),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
            nn.Conv3d(n_out, n_out, kernel, 1, padding),
            norm_layer(norm, n_out),
            nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
        )


class UNet(nn.Module):
    """A U-Net whose stages, strides and kernels come from the plan.

    In training mode with deep supervision the forward pass returns the logits of all decoder
    stages, finest first, otherwise a list with the finest only; each has the axes
    (batch, output, z, y, x).
    """

    def __init__(
        self, n_in: int, n_out: int, plan: Configuration, norm: Norm, *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        features, kernels = plan.features_per_stage, plan.kernel_sizes
        strides = ((1, 1, 1), *plan.strides)
        inputs = (n_in, *features[:-1])
        self.encoder = nn.ModuleList(
            ConvBlock(*stage, norm)
            for stage in zip(inputs, features, kernels, strides, strict=True)
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level in reversed(range(len(features) - 1)):
            width, stride = features[level], strides[level + 1]
            self.up.append(nn.ConvTranspose3d(features[level + 1], width, stride, stride))
            self.decoder.append(ConvBlock(2 * width, width, kernels[level], (1, 1, 1), norm))
            self.heads.append(nn.Conv3d(width, n_out, 1))
        if not plan.strides:  # images of a few voxels: one stage and its head
            self.heads.append(nn.Conv3d(features[0], n_out, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return logits, finest stage first, for an image (batch, channel, z, y, x)."""
        skips: list[Tensor] = []
        for stage in self.encoder:
            image = stage(image)
            skips.append(image)
        skips.pop()
        if not self.up:
            return [self.heads[0](image)]
        every_head = self.training and self.deep_supervision
        logits: list[Tensor] = []
        for index, (up, decoder, head) in enumerate(
            zip(self.up, self.decoder, self.heads, strict=True)
        ):
            image = decoder(torch.cat((up(image), skips.pop()), dim=1))
            if every_head or index == len(self.heads) - 1:
                logits.append(head(image))
        return logits[::-1]


def norm_layer(norm: Norm, n_features: int) -> nn.Module:
    """Return the normalisation layer for `n_features` channels."""
    if norm == "instance":
        return nn.InstanceNorm3d(n_features, eps=NORM_EPSILON, affine=True)
    if norm == "batch":
        return nn.BatchNorm3d(n_features, eps=NORM_EPSILON)
    return nn.GroupNorm(math.gcd(GROUPS, n_features), n_features, eps=NORM_EPSILON)


def build_network(task: Task, plan: Configuration, model: Model) -> UNet:
    """Build the network of a task; its weights are not initialised for training yet."""
    return UNet(
        len(task.channels),
        n_outputs(task, model),
        plan,
        model.norm,
        deep_supervision=model.deep_supervision,
    )


def n_outputs(task: Task, model: Model) -> int:
    """Return the number of output channels: regions, or background plus foreground labels."""
    return len(task.regions) if model.output == "regions" else len(task.foreground_labels) + 1


def initial_weights(network: nn.Module, seed: int) -> Weights:
    """Draw He-initialised weights, biases 0; the same seed gives the same weights anywhere.

    The draw uses numpy's generator, whose stream is the same on every platform.
    """
    generator = np.random.default_rng(seed)
    gain = math.sqrt(2 / (1 + LEAKY_SLOPE**2))
    state = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            weight = state[f"{name}.weight"]
            fan_in = weight[0].size  # as torch counts it, for transposed convolutions as well
            drawn = generator.standard_normal(weight.shape) * (gain / math.sqrt(fan_in))
            state[f"{name}.weight"] = drawn.astype(np.float32)
            if module.bias is not None:
                state[f"{name}.bias"] = np.zeros_like(state[f"{name}.bias"])
    return state


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Copy weights into a network; names that are absent keep their value."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(w)) for name, w in weights.items()}
    _, unexpected = network.load_state_dict(tensors, strict=False)
    if unexpected:
        raise KeyError(f"weights for tensors that the network does not have: {unexpected}")


def load_all_weights(network: nn.Module, weights: Weights, kept: Collection[str]) -> None:
    """Copy weights that arrived into a network; all but the site's own must be there.

    Raises:
        MessageError: when a tensor is missing, unknown or of another shape.
    """
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    wanted = {name: tuple(shape) for name, shape in expected.items() if name not in kept}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if wanted != found:
        differing = sorted(n for n in {*wanted, *found} if wanted.get(n) != found.get(n))
        raise MessageError(f"weights: expected those of the agreed network; differ in {differing}")
    load_weights(network, weights)


def weights_of(network: nn.Module) -> Weights:
    """Return a copy of all tensors of a network, on the CPU, by name."""
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in network.state_dict().items()
    }
