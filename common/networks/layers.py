"""Layers of two or three axes, so that a network is written once for slices and volumes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.config import Norm

NORM_EPSILON = 1e-5  # nnU-Net
GROUPS = 8  # group norm: divides every published feature count; SegResNet's own number

_Kinds = dict[int, Callable[..., nn.Module]]
_TRANSPOSED: _Kinds = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: _Kinds = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MEAN_POOL: _Kinds = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_MAX_POOL: _Kinds = {2: nn.MaxPool2d, 3: nn.MaxPool3d}

Sizes = int | Sequence[int]
"""One for all axes, or one per axis."""


class Convolution3d(nn.Conv3d):
    """torch's convolution, with a right gradient for images that are flatter than the kernel.

    In bfloat16 on x86, torch 2.13.0 reads memory that was never written when it computes the
    weights' gradient of a padded kernel that is deeper than its input of more than one plane: of
    3x3x3 over two planes. The gradient is then anything, up to infinity. With zeros around the
    planes, written out, it is right, and so are all other gradients.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of torch
        """Return the convolved image."""
        pad, depth = self._amount_of_padding(), input.shape[2]
        if pad == 0 or not 1 < depth < self.kernel_size[0] or input.device.type != "cpu":
            return super().forward(input)
        padded = functional.pad(input, (0, 0, 0, 0, pad, pad))
        beside = (0, *(int(width) for width in self.padding[1:]))
        return functional.conv3d(
            padded, self.weight, self.bias, self.stride, beside, self.dilation, self.groups
        )

    def _amount_of_padding(self) -> int:
        """Return the planes of zeros on either side."""
        return 0 if isinstance(self.padding, str) else int(self.padding[0])


_CONVOLUTION: _Kinds = {2: nn.Conv2d, 3: Convolution3d}


class InstanceNorm(nn.Module):
    """Instance norm with scale and shift, of images of any number of axes.

    Equal to `torch.nn.InstanceNorm3d(affine=True)`, also in its tensors' names. That one reshapes
    its input, out of the channels-last layout, which the compiler cannot undo: a compiled step is
    8 % faster with the same arithmetic without the reshaping. Eagerly and in bfloat16, torch's own
    kernel is several times the faster one.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))

    def forward(self, image: Tensor) -> Tensor:
        """Return (batch, channel, ...), every channel of every sample of mean 0, variance 1."""
        if torch.compiler.is_compiling():
            groups = image.shape[1]  # a group per channel: nothing else tells the two norms apart
            return functional.group_norm(image, groups, self.weight, self.bias, NORM_EPSILON)
        return functional.instance_norm(image, weight=self.weight, bias=self.bias, eps=NORM_EPSILON)


@dataclass(frozen=True)
class Layers:
    """Makes the layers of one network."""

    n_axes: int
    """2 or 3."""
    norm_name: Norm

    def convolution(
        self, n_in: int, n_out: int, kernel: Sizes = 1, stride: Sizes = 1, *, bias: bool = True
    ) -> nn.Module:
        """Return a convolution that pads by half its (odd) kernel."""
        widths = (kernel,) * self.n_axes if isinstance(kernel, int) else tuple(kernel)
        steps = (stride,) * self.n_axes if isinstance(stride, int) else tuple(stride)
        padding = tuple(width // 2 for width in widths)
        return _CONVOLUTION[self.n_axes](n_in, n_out, widths, steps, padding, bias=bias)

    def up(self, n_in: int, n_out: int, stride: Sequence[int]) -> nn.Module:
        """Return a transposed convolution whose kernel is its stride."""
        return _TRANSPOSED[self.n_axes](n_in, n_out, tuple(stride), tuple(stride))

    def norm(self, n_features: int) -> nn.Module:
        """Return the normalisation of `n_features` channels."""
        if self.norm_name == "instance":
            return InstanceNorm(n_features)
        if self.norm_name == "batch":
            return _BATCH_NORM[self.n_axes](n_features, eps=NORM_EPSILON)
        return nn.GroupNorm(math.gcd(GROUPS, n_features), n_features, eps=NORM_EPSILON)

    def mean_pool(self, stride: Sequence[int]) -> nn.Module:
        """Return a mean over blocks of the size of the stride."""
        return _MEAN_POOL[self.n_axes](tuple(stride), tuple(stride))

    def max_pool(self, stride: Sequence[int]) -> nn.Module:
        """Return a maximum over blocks of the size of the stride."""
        return _MAX_POOL[self.n_axes](tuple(stride), tuple(stride))
