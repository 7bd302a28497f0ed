"""The network of a run: built from task, plan and configuration, and its weights in and out."""

import math
from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.axes import Weights
from common.config import Model
from common.errors import MessageError
from common.networks.blueprint import Blueprint
from common.networks.layers import InstanceNorm
from common.networks.table import build
from common.networks.unet import LEAKY_SLOPE, UNet
from common.planning.plan import AnyConfiguration
from common.task import Task

__all__ = [
    "UNet",
    "build_network",
    "extra_loss",
    "initial_weights",
    "load_all_weights",
    "load_weights",
    "n_outputs",
    "weights_of",
]

TABLE_DEVIATION = 0.02  # linear layers and learnt tables of transformers; Dosovitskiy et al. 2021
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.BatchNorm2d, nn.BatchNorm3d)
KEPT = (*NORMS, nn.PReLU)  # what torch, or the architecture, starts with the same everywhere


def build_network(task: Task, configuration: AnyConfiguration, model: Model) -> nn.Module:
    """Build the network of a task; its weights are not initialised for training yet.

    Args:
        task: gives channels and outputs.
        configuration: of the plan, of two or three axes.
        model: names the architecture and its options; a cascade's second stage has a further
            input channel per label.

    Returns:
        A module from an image (batch, channel, [z,] y, x) to a list of logits, finest first: one
        of every supervised stage in training mode, else the finest only.

    Raises:
        ConfigError: when the architecture cannot take the plan or the options.
    """
    n_extra = len(task.foreground_labels) if model.first_stage else 0
    wanted = Blueprint(
        n_inputs=len(task.channels) + n_extra,
        n_outputs=n_outputs(task, model),
        plan=configuration,
        norm=model.norm,
        deep_supervision=model.deep_supervision,
    )
    return build(model.architecture, wanted)


def extra_loss(network: nn.Module) -> Tensor | None:
    """Return what the last forward pass adds to the loss, ready weighted; None for most networks.

    Only an architecture that learns something besides the segmentation has one, and only in
    training mode. It belongs to the graph of that pass: add it before `backward`.
    """
    found = getattr(network, "extra_loss", None)
    return found if isinstance(found, Tensor) else None


def n_outputs(task: Task, model: Model) -> int:
    """Return the number of output channels: regions, or background plus foreground labels."""
    return len(task.regions) if model.output == "regions" else len(task.foreground_labels) + 1


def initial_weights(network: nn.Module, seed: int) -> Weights:
    """Draw the weights that every site starts from; the same seed gives the same ones anywhere.

    Convolutions are drawn as He et al. 2015, linear layers and tables with a deviation of 0.02,
    biases are 0. Norms keep what their architecture starts them with, and so do learnt slopes and
    constants. The draw uses numpy's generator, whose stream is the same on every platform.
    """
    generator = np.random.default_rng(seed)
    state = dict(weights_of(network))
    for prefix, module in network.named_modules():
        if isinstance(module, KEPT):
            continue
        for tensor, _ in module.named_parameters(recurse=False):
            name = f"{prefix}.{tensor}" if prefix else tensor
            if tensor == "bias":
                state[name] = np.zeros_like(state[name])
            else:
                state[name] = _drawn(module, state[name].shape, generator)
    return state


def _drawn(
    module: nn.Module, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float32]:
    deviation = TABLE_DEVIATION
    if isinstance(module, CONVOLUTIONS):
        gain = math.sqrt(2 / (1 + LEAKY_SLOPE**2))
        # torch counts the inputs of transposed convolutions the same way
        deviation = gain / math.sqrt(math.prod(shape[1:]))
    return (generator.standard_normal(shape) * deviation).astype(np.float32)


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Copy weights into a network; names that are absent keep their value."""
    tensors = {name: torch.from_numpy(np.array(w, order="C")) for name, w in weights.items()}
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
