"""The gradient of every sample of a batch from one backward pass; the only file that knows opacus.

It is what the gradients of `client.privacy.private_step` are compared with. Opacus has samplers
for most layers and tries functorch for others, which raises inside a U-Net. It looks up a layer's
exact type. Added here: our own instance norm, transposed convolutions, and convolutions that do
not unfold their input, which would take 27 times its memory.

Source: Yousefpour et al. 2021, Opacus: user-friendly differential privacy library in PyTorch.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from opacus.grad_sample import register_grad_sampler
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn
from torch.nn import functional

from common.networks.layers import NORM_EPSILON, Convolution3d, InstanceNorm

Samples = dict[Tensor, Tensor]
"""Gradients, axes (sample, *parameter), by parameter."""
Sampler = Callable[[Any, list[Tensor], Tensor], Samples]
Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d

_samples: Callable[..., Callable[[Sampler], Sampler]] = register_grad_sampler


@_samples(InstanceNorm)
def _of_instance_norm(layer: InstanceNorm, inputs: list[Tensor], backward: Tensor) -> Samples:
    normalised = functional.instance_norm(inputs[0], eps=NORM_EPSILON)
    return {
        layer.weight: torch.einsum("nc...,nc...->nc", normalised, backward),
        layer.bias: torch.einsum("nc...->nc", backward),
    }


@_samples([nn.Conv2d, nn.Conv3d, Convolution3d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def _of_convolution(layer: Convolution, inputs: list[Tensor], backward: Tensor) -> Samples:
    found = {}
    if layer.weight.requires_grad:
        found[layer.weight] = torch.stack(_weight_gradients(layer, inputs[0], backward))
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = backward.flatten(2).sum(2)
    return found


def _weight_gradients(layer: Convolution, image: Tensor, backward: Tensor) -> list[Tensor]:
    """Return the weight's gradient of every sample: the layer's own, with the batch cut up."""
    transposed = isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
    none, padding = [0] * len(layer.stride), [int(width) for width in layer.padding]
    if isinstance(layer, nn.Conv3d):  # written out: see `common.networks.layers.Convolution3d`
        image = functional.pad(image, (0, 0, 0, 0, padding[0], padding[0]))
        padding[0] = 0
    return [
        torch.ops.aten.convolution_backward(
            sample_backward.to(sample.dtype),
            sample,
            layer.weight.to(sample.dtype),
            None,
            layer.stride,
            padding,
            layer.dilation,
            transposed,
            layer.output_padding if transposed else none,
            layer.groups,
            [False, True, False],
        )[1]
        for sample, sample_backward in zip(image[:, None], backward[:, None], strict=True)
    ]


class PerSample:
    """A network whose backward pass gives the gradient of every sample."""

    def __init__(self, network: nn.Module) -> None:
        for module in network.modules():
            if getattr(module, "inplace", False):  # hooks cannot see what is changed in place
                vars(module)["inplace"] = False
        self.network = network
        self._hooks: Any = GradSampleHooks(network, loss_reduction="sum")

    def gradients(self, loss_of_batch: Callable[[], Tensor]) -> list[Tensor | None]:
        """Return the gradients, axes (sample, *parameter), in the order of the parameters.

        Args:
            loss_of_batch: runs the network on a batch; gives the sum of the samples' losses.
        """
        with warnings.catch_warnings():  # no gradient of the images is wanted
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            loss_of_batch().backward()  # type: ignore[no-untyped-call]
        found = [getattr(p, "grad_sample", None) for p in self.network.parameters()]
        self._forget()
        return found

    def close(self) -> None:
        """Leave the network as it was, but for activations that no longer work in place."""
        self._hooks.remove_hooks()
        self._forget()

    def _forget(self) -> None:
        for parameter in self.network.parameters():
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
            parameter._forward_counter = 0  # type: ignore[attr-defined]  # noqa: SLF001 - of heads
        for module in self.network.modules():
            if hasattr(module, "activations"):
                vars(module)["activations"] = []
            if hasattr(module, "max_batch_len"):
                del module.max_batch_len
