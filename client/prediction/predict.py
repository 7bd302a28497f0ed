"""Sliding-window prediction with Gaussian weights and mirroring, slab by slab.

Tiles are visited layer by layer, and planes that no later tile touches leave at once: what is held
is one tile's depth of the image, however long it is. 2D networks take every slice across the
network's first axis.

Source: nnU-Net inference (`client.prediction.tiles`). The mean over tiles and mirrorings is one of
probabilities in the paper's code and in nnU-Net v1, and one of logits in nnunetv2 2.8.1; a plan's
rules decide.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from client.device import Device
from client.prediction.single_norm import single_sample_norms
from client.prediction.tiles import Slices3, gaussian_weight, layers, mirrorings, pad_to
from client.prediction.tiles_mean import Allocate, TilesMean
from common.axes import Image, LabelMap, Probabilities, Shape, in_volume
from common.config import Output
from common.errors import ConfigError
from common.task import Task, labels_of

Averaging = Literal["probabilities", "logits"]
TilesProgress = Callable[[int, int], None]
Pass = tuple[Slices3, tuple[int, ...]]
"""A tile, and the axes along which it is mirrored."""
IN_ORDER: Final = (0, 1, 2)
BATCH_VOXELS_CPU: Final = 2**16  # a tile of 24^3 gains 30 % from it, larger ones nothing; measured
BATCH_VOXELS_GPU: Final = 2**22  # two tiles of 128^3
MAX_BATCH: Final = 64


@dataclass(frozen=True)
class Window:
    """How a network is slid over images."""

    patch_size: tuple[int, ...]
    """Of the plan, two or three of the network's axes; smaller images are padded with 0."""
    output: Output
    """Softmax over labels or a sigmoid per region."""
    mirroring: bool
    """Whether to average over the mirrorings of all axes of the patch."""
    averaging: Averaging = "probabilities"
    batch_size: int | None = None
    """Tiles and mirrorings per pass; None for what suits device and patch."""

    @property
    def patch3(self) -> Shape:
        """Patch along the network's three axes, 1 across the slices of a 2D network."""
        return in_volume(self.patch_size)


def predict(
    network: nn.Module,
    image: Image,
    patch_size: tuple[int, ...],
    output: Output,
    device: Device,
    *,
    mirroring: bool,
    averaging: Averaging = "probabilities",
    batch_size: int | None = None,
) -> Probabilities:
    """Return probabilities for a prepared image, axes (output, z, y, x) of the network grid.

    Args:
        network: in the state it is to predict with; it is put into evaluation mode.
        image: prepared intensities (channel, z, y, x).
        patch_size: of the plan, two or three axes; smaller images are padded with 0.
        output: softmax over labels or a sigmoid per region.
        device: where to compute.
        mirroring: average over the mirrorings of all axes of the patch.
        averaging: what the mean over tiles and mirrorings is made of.
        batch_size: tiles and mirrorings per pass; None for what suits device and patch.
    """
    window = Window(patch_size, output, mirroring, averaging, batch_size)
    found = None
    start = 0
    for slab in predicted_slabs(network, image, window, device):
        if found is None:
            found = np.empty((len(slab), *image.shape[1:]), np.float32)
        found[:, start : start + slab.shape[1]] = slab
        start += slab.shape[1]
    if found is None:
        raise ValueError("an image has at least one tile")
    return found if averaging == "probabilities" else activated(found, output)


def decide(probabilities: Probabilities, task: Task, output: Output) -> LabelMap:
    """Return label values: the most probable label, or the task's table over regions > 0.5."""
    if output == "regions":
        return labels_of(probabilities > 0.5, task)
    values = np.array((0, *task.foreground_labels), np.uint8)
    labels: LabelMap = values[probabilities.argmax(axis=0)]
    return labels


def activated(logits: NDArray[np.float32], output: Output) -> Probabilities:
    """Return the probabilities of logits, axes (output, z, y, x)."""
    return _probabilities(torch.from_numpy(logits), output, dim=0).numpy()


def predicted_slabs(
    network: nn.Module,
    image: Image,
    window: Window,
    device: Device,
    *,
    transpose: Shape = IN_ORDER,
    progress: TilesProgress | None = None,
    allocate: Allocate = np.zeros,
) -> Iterator[NDArray[np.float32]]:
    """Predict a prepared image and yield consecutive slabs of it, from its first plane to its last.

    Args:
        network: in the state it is to predict with; it is put into evaluation mode.
        image: prepared intensities (channel, network axes).
        window: how the network is slid over it.
        device: where to compute.
        transpose: which axis of the slabs each axis of the network is.
        progress: told tiles done and all tiles.
        allocate: gives the memory for the mean over tiles, if that lies on the CPU.

    Yields:
        Means over tiles and mirrorings of what `window.averaging` names: axes (output, z, y, x),
        float32, z along the first axis of the image before `transpose`.

    Raises:
        ConfigError: when a single tile is too much for the accelerator's memory.
    """
    network.eval()
    back = np.argsort(transpose)
    patch = _shape(window.patch3[axis] for axis in back)
    padded, inside = pad_to(image.transpose(0, *(1 + back)), patch)
    slice_axis = transpose[0] if len(window.patch_size) == 2 else None
    plan = layers(_shape(padded.shape[1:]), patch, slice_axis)
    flips = mirrorings([1 + a for a in range(3) if a != slice_axis]) if window.mirroring else [()]
    depth = max(layer.stop - layer.start for layer in plan)
    mean = TilesMean(gaussian_weight(patch), (depth, *padded.shape[2:]), device, allocate)
    done, total = 0, sum(len(layer.tiles) for layer in plan)
    for layer, following in zip(plan, [*plan[1:], None], strict=True):
        passes = [(tile, flip) for tile in layer.tiles for flip in flips]
        scores = _scores(network, padded, passes, window, device, transpose)
        for tile, tile_mean in _mean_of_flips(scores, len(flips)):
            mean.add(tile, tile_mean)
            done += 1
            if progress:
                progress(done, total)
        yield from mean.leave(following.start if following else layer.stop, inside)


def _mean_of_flips(
    scores: Iterator[tuple[Pass, Tensor]], n_flips: int
) -> Iterator[tuple[Slices3, Tensor]]:
    """Yield every tile with the mean of its mirrorings, which follow each other."""
    for (tile, _), summed in scores:
        for _ in range(n_flips - 1):
            summed = summed + next(scores)[1]  # noqa: PLW2901 - what was read is part of the sum
        yield tile, summed / n_flips


def _scores(
    network: nn.Module,
    image: Image,
    passes: Sequence[Pass],
    window: Window,
    device: Device,
    transpose: Shape,
) -> Iterator[tuple[Pass, Tensor]]:
    """Yield every pass with its scores, mirrored back, axes (output, z, y, x).

    Batches are halved when they are too much for the accelerator's memory.
    """
    size = window.batch_size or _batch_size(window.patch3, device)
    first = 0
    while first < len(passes):
        chunk = passes[first : first + size]
        try:
            found = _batch_scores(network, image, chunk, window, device, transpose)
        except torch.OutOfMemoryError:
            if len(chunk) == 1:
                raise ConfigError(
                    f"patch {window.patch_size}: one tile is too much for the accelerator's "
                    "memory; expected a plan for less memory (--memory-gb) or a larger device"
                ) from None
            size = len(chunk) // 2
            continue
        first += len(chunk)
        yield from zip(chunk, found, strict=True)


@torch.inference_mode()
def _batch_scores(
    network: nn.Module,
    image: Image,
    passes: Sequence[Pass],
    window: Window,
    device: Device,
    transpose: Shape,
) -> list[Tensor]:
    forth = (0, *(1 + axis for axis in transpose))
    back = (0, *(1 + int(axis) for axis in np.argsort(transpose)))
    patches = [
        torch.from_numpy(np.ascontiguousarray(image[(slice(None), *tile)])).flip(flip)
        for tile, flip in passes
    ]
    batch = torch.stack([patch.permute(forth) for patch in patches])
    with single_sample_norms(network), device.autocast():
        logits = network(_placed(batch, window, device))[0].float()
    if window.averaging == "probabilities":
        logits = _probabilities(logits, window.output, dim=1)
    if logits.ndim == 4:  # of a 2D network
        logits = logits.unsqueeze(2)
    return [
        scores.permute(back).flip(flip) for scores, (_, flip) in zip(logits, passes, strict=True)
    ]


def _placed(batch: Tensor, window: Window, device: Device) -> Tensor:
    """Bring a batch to the device, channels last; slices without the axis across them."""
    if len(window.patch_size) == 3:
        return device.place(batch)
    return batch.squeeze(2).to(device.device, memory_format=torch.channels_last, non_blocking=True)


def _probabilities(logits: Tensor, output: Output, *, dim: int) -> Tensor:
    return functional.softmax(logits, dim=dim) if output == "labels" else torch.sigmoid(logits)


def _batch_size(patch: Shape, device: Device) -> int:
    voxels = BATCH_VOXELS_CPU if device.device.type == "cpu" else BATCH_VOXELS_GPU
    return min(MAX_BATCH, max(1, voxels // prod(patch)))


def _shape(sizes: Any) -> Shape:
    z, y, x = (int(size) for size in sizes)
    return z, y, x
