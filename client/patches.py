"""Batches of patches for training, a third of them centred on foreground.

Source: nnU-Net (arXiv 1904.08128v2), supplement "data augmentation" and "patch sampling".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.cache import CacheEntry, Slices3
from common.axes import Shape

FOREGROUND_FRACTION: Final = 0.33  # of a batch is forced onto foreground; nnU-Net 1.7.1
MIRROR_PROBABILITY: Final = 0.5  # per axis and sample; nnU-Net 1.7.1, default trainer
NOISE_PROBABILITY: Final = 0.1  # per sample; same source
NOISE_VARIANCE: Final = (0.0, 0.1)  # nnU-Net, supplement D
BRIGHTNESS_PROBABILITY: Final = 0.15  # per sample; nnU-Net 1.7.1, default trainer
BRIGHTNESS_FACTOR: Final = (0.75, 1.25)  # drawn per channel; same source
GAMMA_PROBABILITY: Final = 0.3  # per sample; same source
GAMMA: Final = (0.7, 1.5)  # drawn per channel; same source
RANGE_FLOOR: Final = 1e-7  # keeps a constant channel from dividing by zero; same source

Starts = tuple[int, int, int]
Volume = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step sees. Stays at the site."""

    images: NDArray[np.float32]
    """Axes (batch, channel, network axes)."""
    labels: NDArray[np.uint8]
    """Axes (batch, network axes)."""


@dataclass(frozen=True, eq=False)
class Augmentation:
    """What happens to each sample of a batch; neutral values leave it as it is."""

    mirrored: NDArray[np.bool_]
    """Axes (batch, network axis)."""
    noise_std: NDArray[np.float32]
    """Axes (batch); 0 is neutral."""
    noise_seed: int
    brightness: NDArray[np.float32]
    """Factors, axes (batch, channel); 1 is neutral."""
    gamma: NDArray[np.float32]
    """Exponents, axes (batch, channel); 1 is neutral."""


def sample_batch(
    entries: Sequence[CacheEntry], patch_size: Shape, batch_size: int, rng: np.random.Generator
) -> Batch:
    """Draw patches from random cases, with replacement.

    The last third of the batch (at least one; in a batch of one, one draw in three) is centred
    on a voxel of a foreground class, drawn uniformly among the classes of the case; the others
    lie anywhere. A case without foreground gives a patch from anywhere.

    Args:
        entries: at least one prepared, labelled case; all with the same channels.
        patch_size: voxels along the network's axes.
        batch_size: at least 1.
        rng: decides everything.

    Returns:
        Patches; where a case is smaller than the patch it lies in its middle, with 0 around.
    """
    chosen = [entries[index] for index in rng.integers(len(entries), size=batch_size)]
    forced = forced_onto_foreground(batch_size, rng)
    images = np.zeros((batch_size, chosen[0].meta.channels, *patch_size), np.float32)
    labels = np.zeros((batch_size, *patch_size), np.uint8)
    for sample, entry in enumerate(chosen):
        starts = _draw_starts(entry, patch_size, rng, onto_foreground=forced[sample])
        source, target = overlap(entry.shape, starts, patch_size)
        images[(sample, slice(None), *target)] = entry.image(source)
        labels[(sample, *target)] = entry.labels(source)
    return Batch(images, labels)


def augment(batch: Batch, rng: np.random.Generator, *, mirror: bool, intensity: bool) -> Batch:
    """Return the batch with mirrored samples and varied intensities; the input is unchanged."""
    n_samples, n_channels = batch.images.shape[:2]
    drawn = draw_augmentation(n_samples, n_channels, rng, mirror=mirror, intensity=intensity)
    return apply_augmentation(batch, drawn)


def draw_augmentation(
    n_samples: int, n_channels: int, rng: np.random.Generator, *, mirror: bool, intensity: bool
) -> Augmentation:
    """Draw what happens to each sample, by the probabilities and ranges at the top of this file."""
    each, per_channel = (n_samples,), (n_samples, n_channels)
    mirrored = rng.random((n_samples, 3)) < MIRROR_PROBABILITY * mirror
    noise_std = np.sqrt(rng.uniform(*NOISE_VARIANCE, each))
    brightness = rng.uniform(*BRIGHTNESS_FACTOR, per_channel)
    gamma = rng.uniform(*GAMMA, per_channel)
    return Augmentation(
        mirrored=mirrored,
        noise_std=_sometimes(noise_std, 0, NOISE_PROBABILITY * intensity, rng),
        noise_seed=int(rng.integers(2**32)),
        brightness=_sometimes(brightness, 1, BRIGHTNESS_PROBABILITY * intensity, rng),
        gamma=_sometimes(gamma, 1, GAMMA_PROBABILITY * intensity, rng),
    )


def apply_augmentation(batch: Batch, drawn: Augmentation) -> Batch:
    """Return the batch with what was drawn done to it; same input, same output."""
    rng = np.random.default_rng(drawn.noise_seed)
    images, labels = np.empty_like(batch.images), np.empty_like(batch.labels)
    for sample, flips in enumerate(drawn.mirrored):
        mirrored = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
        labels[sample] = batch.labels[sample][mirrored]
        for channel, volume in enumerate(batch.images[sample]):
            noisy = _noisy(volume, drawn.noise_std[sample], rng)
            bright = noisy * drawn.brightness[sample, channel]
            images[sample, channel] = _gamma(bright, drawn.gamma[sample, channel])[mirrored]
    return Batch(images, labels)


def forced_onto_foreground(batch_size: int, rng: np.random.Generator) -> list[bool]:
    """Return for every sample of a batch whether its patch must hold foreground."""
    if batch_size == 1:
        return [bool(rng.random() < 1 / 3)]
    first = min(round(batch_size * (1 - FOREGROUND_FRACTION)), batch_size - 1)
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
    return _three(source), _three(target)


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


def _sometimes(
    values: NDArray[np.float64], neutral: float, probability: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Keep the drawn values of the samples (first axis) that are chosen; the rest is neutral."""
    chosen = rng.random((len(values), *(1,) * (values.ndim - 1))) < probability
    return np.where(chosen, values, neutral).astype(np.float32)


def _noisy(volume: Volume, std: np.float32, rng: np.random.Generator) -> Volume:
    if std == 0:
        return volume
    noise: Volume = rng.standard_normal(volume.shape, np.float32) * std
    return volume + noise


def _gamma(volume: Volume, exponent: np.float32) -> Volume:
    """Bend the intensities within their range, then give mean and deviation back."""
    if exponent == 1:
        return volume
    low, span = volume.min(), np.ptp(volume) + np.float32(RANGE_FLOOR)
    bent = ((volume - low) / span) ** exponent
    standardised = (bent - bent.mean()) / (bent.std() + np.float32(RANGE_FLOOR))
    restored: Volume = standardised * volume.std() + volume.mean()
    return restored


def _three(slices: tuple[slice, ...]) -> Slices3:
    a, b, c = slices
    return a, b, c
