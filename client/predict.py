"""Sliding-window prediction with Gaussian weights and mirroring.

Source: nnU-Net inference: tiles of the training patch, half a patch apart and evenly spread;
Gaussian weight of sigma patch / 8 with its maximum scaled to 1 and zeros replaced by the
smallest positive weight; mean over all mirrorings.
"""

import math
from collections.abc import Iterator
from itertools import chain, combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client.device import Device
from common.axes import Image, LabelMap, Probabilities, Shape
from common.config import Output
from common.task import Task, labels_of


def predict(
    network: nn.Module,
    image: Image,
    patch_size: Shape,
    output: Output,
    device: Device,
    *,
    mirroring: bool,
) -> Probabilities:
    """Return probabilities for a prepared image, axes (output, z, y, x) of the network grid.

    Args:
        network: in the state it is to predict with; it is put into evaluation mode.
        image: prepared intensities (channel, z, y, x).
        patch_size: of the plan; smaller images are padded with 0.
        output: softmax over labels or a sigmoid per region.
        device: where to compute.
        mirroring: average over the mirrorings of all three axes.
    """
    network.eval()
    padded, inside = pad_to(image, patch_size)
    weight = torch.from_numpy(gaussian_weight(patch_size)).to(device.device)
    shape = padded.shape[1:]
    total: Tensor | None = None
    norm = torch.zeros(shape, device=device.device)
    with torch.inference_mode():
        for tile in tiles((shape[0], shape[1], shape[2]), patch_size):
            patch = torch.from_numpy(np.ascontiguousarray(padded[(slice(None), *tile)]))
            scores = _probabilities(network, patch[None], output, device, mirroring=mirroring)[0]
            if total is None:
                total = torch.zeros((scores.shape[0], *shape), device=device.device)
            total[(slice(None), *tile)] += scores * weight
            norm[tile] += weight
    if total is None:
        raise ValueError("an image has at least one tile")
    mean: Probabilities = (total / norm)[(slice(None), *inside)].cpu().numpy()
    return mean


def decide(probabilities: Probabilities, task: Task, output: Output) -> LabelMap:
    """Return label values: the most probable label, or the task's table over regions > 0.5."""
    if output == "regions":
        return labels_of(probabilities > 0.5, task)
    values = np.array((0, *task.foreground_labels), np.uint8)
    labels: LabelMap = values[probabilities.argmax(axis=0)]
    return labels


def tiles(shape: Shape, patch_size: Shape) -> Iterator[tuple[slice, slice, slice]]:
    """Yield tiles that cover a shape not smaller than the patch, at most half a patch apart."""
    starts = [_starts(size, patch) for size, patch in zip(shape, patch_size, strict=True)]
    for z, y, x in product(*starts):
        d, h, w = patch_size
        yield slice(z, z + d), slice(y, y + h), slice(x, x + w)


def gaussian_weight(patch_size: Shape) -> NDArray[np.float32]:
    """Return the weight of every voxel of a tile, maximum 1 at the centre, all positive."""
    profiles = [
        np.exp(-0.5 * ((np.arange(size) - size // 2) / (size / 8)) ** 2) for size in patch_size
    ]
    weight: NDArray[np.float32] = np.einsum("z,y,x->zyx", *profiles).astype(np.float32)
    weight[weight == 0] = weight[weight > 0].min()
    return weight


def pad_to(image: Image, patch_size: Shape) -> tuple[Image, tuple[slice, slice, slice]]:
    """Pad an image with 0 to at least the patch; return it and where the image lies in it."""
    missing = [
        max(patch - size, 0) for size, patch in zip(image.shape[1:], patch_size, strict=True)
    ]
    before = [amount // 2 for amount in missing]
    widths = [(first, amount - first) for first, amount in zip(before, missing, strict=True)]
    inside = [
        slice(first, first + size) for first, size in zip(before, image.shape[1:], strict=True)
    ]
    return np.pad(image, [(0, 0), *widths]), (inside[0], inside[1], inside[2])


def _starts(size: int, patch: int) -> list[int]:
    steps = math.ceil((size - patch) / (patch / 2))
    if steps <= 0:
        return [0]
    return [round(index * (size - patch) / steps) for index in range(steps + 1)]


def _probabilities(
    network: nn.Module, patch: Tensor, output: Output, device: Device, *, mirroring: bool
) -> Tensor:
    axes = (2, 3, 4)
    flips = chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1))
    chosen = list(flips) if mirroring else [()]
    total = torch.zeros((), device=device.device)
    for flip in chosen:
        with device.autocast():
            logits = network(device.place(patch.flip(flip)))[0]
        activation = (
            functional.softmax(logits.float(), dim=1)
            if output == "labels"
            else torch.sigmoid(logits.float())
        )
        total = total + activation.flip(flip)
    return total / len(chosen)
