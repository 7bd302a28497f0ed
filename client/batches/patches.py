"""Batches of patches for training, a third of them centred on foreground.

Source: nnU-Net (arXiv 1904.08128v2), supplement "data augmentation" and "patch sampling".
"""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.batches.augmentation import Drawn, Frame, draw, matrix_of, moves
from client.batches.cascade_input import cascade_channels
from client.batches.spatial import deformation, positions, reach, resample, resample_labels
from client.batches.transforms import NormalNoise, change_intensities, normal_noise
from client.caching.cache import CacheEntry, Slices3
from common.augmentation import Preset
from common.axes import Shape, in_volume, three

Starts = tuple[int, int, int]
T = TypeVar("T")
N = TypeVar("N", bound=np.generic)

_READING: Final = Lock()  # blosc2 does not promise that two threads may read one array at once


@dataclass(frozen=True)
class Recipe:
    """How a batch is made."""

    patch_size: tuple[int, ...]
    """Voxels along the network's axes: three, or two for slices across the first axis."""
    batch_size: int
    preset: Preset
    foreground_fraction: float
    """Share of the batch that is forced onto foreground; above 0, at least one sample is."""
    in_plane: bool = False
    """Whether a volume is too flat to be turned, scaled or made coarser out of its planes."""
    masked: tuple[bool, ...] = ()
    """Which channels a masked z-score left 0 outside the brain; empty for none."""
    cascade_labels: tuple[int, ...] = ()
    """Values of the first stage's labels that become further channels; empty for none."""

    @property
    def volume(self) -> Shape:
        """Size of the patch within the case; a slice is one voxel thick."""
        return in_volume(self.patch_size)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees. Stays at the site."""

    images: NDArray[np.float32]
    """Axes (batch, channel, network axes)."""
    labels: NDArray[np.uint8]
    """Axes (batch, network axes)."""


def sample_batch(
    entries: Sequence[CacheEntry],
    recipe: Recipe,
    rng: np.random.Generator,
    device: torch.device | None = None,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Tensor, Tensor]:
    """Draw patches from random cases, with replacement, and vary them.

    The last third of the batch (at least one; in a batch of one, one draw in three) is centred
    on a voxel of a foreground class, drawn uniformly among the classes of the case; the others
    lie anywhere. A case without foreground gives a patch from anywhere. Where a case is smaller
    than the patch it lies in its middle, with 0 around.

    Args:
        entries: at least one prepared, labelled case; all with the same channels.
        recipe: how.
        rng: decides everything.
        device: where patches are varied and returned; the CPU if None.
        stopped: asked before every sample; if true, the batch is given up.

    Returns:
        Images, axes (batch, channel, network axes), and labels, axes (batch, network axes).

    Raises:
        CancelledError: when given up.
        DataError: for a case that cannot be read.
    """
    chosen = [entries[index] for index in rng.integers(len(entries), size=recipe.batch_size)]
    forced = forced_onto_foreground(recipe.batch_size, recipe.foreground_fraction, rng)
    starts = [
        _draw_starts(entry, recipe.volume, rng, onto_foreground=force)
        for entry, force in zip(chosen, forced, strict=True)
    ]
    n, n_channels, size = recipe.batch_size, chosen[0].meta.channels, recipe.patch_size
    frame = Frame(n, n_channels, size, recipe.in_plane, recipe.cascade_labels)
    drawn = draw(recipe.preset, frame, rng)
    where = device or torch.device("cpu")
    noise = normal_noise(drawn.noise_seed, where)
    images = _empty((n, n_channels + len(recipe.cascade_labels), *size), torch.float32, where)
    labels = _empty((n, *size), torch.uint8, where)
    for sample, (entry, start) in enumerate(zip(chosen, starts, strict=True)):
        if stopped():
            raise CancelledError
        seen, marked = _see(entry, start, recipe, drawn, sample, noise, where)
        _put(images[sample], seen, drawn.mirrored[sample])
        _put(labels[sample], marked, drawn.mirrored[sample])
    return images, labels


def forced_onto_foreground(
    batch_size: int, fraction: float, rng: np.random.Generator
) -> list[bool]:
    """Return for every sample of a batch whether its patch must hold foreground."""
    if batch_size == 1:
        return [bool(rng.random() < fraction)]
    first = round(batch_size * (1 - fraction))
    if fraction > 0:
        first = min(first, batch_size - 1)
    return [sample >= first for sample in range(batch_size)]


def overlap(shape: Shape, starts: Starts, patch_size: Shape) -> tuple[Slices3, Slices3]:
    """Return where the patch lies in the case, and where that part lies in the patch.

    Args:
        shape: of the case.
        starts: first voxel of the patch; negative where the patch is larger than the case.
        patch_size: of the patch.
    """
    low = [max(0, start) for start in starts]
    high = [min(n, start + size) for n, start, size in zip(shape, starts, patch_size, strict=True)]
    source = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, starts, strict=True))
    return three(source), three(target)


def _draw_starts(
    entry: CacheEntry, patch_size: Shape, rng: np.random.Generator, *, onto_foreground: bool
) -> Starts:
    room = np.subtract(entry.shape, patch_size)
    if onto_foreground and entry.foreground:
        values = sorted(entry.foreground)
        voxels = entry.foreground[values[rng.integers(len(values))]]
        wanted = voxels[rng.integers(len(voxels))] - np.floor_divide(patch_size, 2)
        starts = np.clip(wanted, 0, np.maximum(room, 0))
    else:
        starts = rng.integers(0, np.maximum(room, 0), endpoint=True)
    # a case smaller than the patch lies in its middle, as in nnU-Net
    a, b, c = np.where(room < 0, -(-room // 2), starts).tolist()
    return a, b, c


def _see(
    entry: CacheEntry,
    starts: Starts,
    recipe: Recipe,
    drawn: Drawn,
    sample: int,
    noise: NormalNoise,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return one sample's images and labels as drawn, not yet mirrored."""
    if moves(drawn, sample):
        images, maps = _moved(entry, starts, recipe, drawn, sample, noise, device)
    else:
        images, maps = _read(entry, starts, recipe.volume, recipe, device)
    if len(recipe.patch_size) == 2:
        images, maps = images[:, 0], maps[:, 0]
    change_intensities(images, drawn, sample, recipe.preset, noise, recipe.masked)
    if recipe.cascade_labels:
        coarse = cascade_channels(maps[1], recipe.cascade_labels, drawn.cascade, sample)
        images = torch.cat([images, coarse])
    return images, maps[0]


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return memory for a batch; numpy asks the system for huge pages, torch does not."""
    if device.type == "cpu":
        block = torch.from_numpy(np.empty(prod(shape) * dtype.itemsize, np.uint8))
        return block.view(dtype).view(shape)
    return torch.empty(shape, dtype=dtype, device=device)


def _put(target: Tensor, seen: Tensor, mirrored: NDArray[np.bool_]) -> None:
    """Copy a sample to its place, mirrored along its last axes."""
    first = seen.ndim - len(mirrored)
    axes = [first + axis for axis in np.flatnonzero(mirrored).tolist()]
    if target.device.type == "cpu":  # numpy mirrors while it copies
        target.numpy()[...] = np.flip(seen.numpy(), tuple(axes))
    else:
        target.copy_(seen.flip(axes))


def _moved(
    entry: CacheEntry,
    starts: Starts,
    recipe: Recipe,
    drawn: Drawn,
    sample: int,
    noise: NormalNoise,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return images and label maps of a patch that is turned, scaled or deformed."""
    n_axes = 2 if recipe.in_plane else len(recipe.patch_size)  # those that are resampled
    size, kept = recipe.volume[-n_axes:], recipe.volume[:-n_axes]
    matrix = matrix_of(drawn, sample)[-n_axes:, -n_axes:]
    width, *fractions = drawn.elastic[sample].tolist()
    magnitudes = [f * n for f, n in zip(fractions[-n_axes:], size, strict=True)]
    box = [
        (max(start + first, 0), min(start + last, n))  # beyond the case there is nothing to read
        for start, n, (first, last) in zip(
            starts[-n_axes:], entry.shape[-n_axes:], reach(size, matrix, magnitudes), strict=True
        )
    ]
    begins = (*starts[:-n_axes], *(first for first, _ in box))
    sizes = (*kept, *(last - first for first, last in box))
    images, maps = _read(entry, three(begins), three(sizes), recipe, device)
    summands = deformation(size, width, magnitudes, noise) if any(magnitudes) else []
    origin = [first - start for (first, _), start in zip(box, starts[-n_axes:], strict=True)]
    places = positions(size, matrix, origin, summands, device)
    planes = images.reshape(-1, *images.shape[-n_axes:])
    seen = resample(planes, places).reshape(len(images), *recipe.volume)
    labels = resample_labels(maps.reshape(-1, *maps.shape[-n_axes:]), places)
    return seen, labels.reshape(len(maps), *recipe.volume)


def _read(
    entry: CacheEntry, starts: Starts, size: Shape, recipe: Recipe, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return images and label maps (the reference, then the first stage's) of a region.

    Outside the case both are 0. All of it is new memory, which may be changed in place.
    """
    source, target = overlap(entry.shape, starts, size)
    with _READING:
        image, regions = entry.image(source), [entry.labels(source)]
        if recipe.cascade_labels:
            regions.append(entry.previous(source))
    maps = torch.from_numpy(_padded(np.stack(regions), target, size))
    if entry.in_memory and image.shape[1:] == size:
        image = image.copy()
    images = torch.from_numpy(_padded(image, target, size))
    if device.type == "cuda":  # copied to the device beside other work
        images, maps = images.pin_memory(), maps.pin_memory()
    return images.to(device, non_blocking=True), maps.to(device, non_blocking=True)


def _padded(region: NDArray[N], target: Slices3, size: Shape) -> NDArray[N]:
    """Return a region (first axis: channels) with zeros around it; itself if it is whole."""
    if region.shape[1:] == size:
        return region
    padded = np.zeros((len(region), *size), region.dtype)
    padded[(slice(None), *target)] = region
    return padded
