"""What happens to each sample of a batch: drawn here, as numbers; done in `transforms.py`.

Every draw is made, whatever comes of it, so that what a step draws later never depends on the
chances of what it drew before.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.augmentation import Cascade, Change, Preset, degrees_of

ELASTIC_MAGNITUDE: Final = (1 / 8, 1 / 2)  # of the smoothness' width; batchgenerators 0.25
OPERATORS: Final = ("none", "dilate", "erode", "close", "open")

Numbers: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """What drawing must know of the samples."""

    n_samples: int
    n_channels: int
    patch_size: tuple[int, ...]
    """Two axes for slices, three for volumes."""
    in_plane: bool = False
    """Whether a volume is too flat to be turned, scaled or made coarser out of its planes."""
    cascade_labels: tuple[int, ...] = ()
    """Values of the first stage's labels that are appended as channels."""


@dataclass(frozen=True, eq=False)
class CascadeDrawn:
    """What happens to the first stage's labels. Axes (batch, label)."""

    order: NDArray[np.int64]
    """In which order the labels are changed; each row is a permutation."""
    operator: NDArray[np.int64]
    """Index into `OPERATORS`; 0 is neutral."""
    radius: Numbers
    """Of the operator, in voxels."""
    removed: Numbers
    """Which component goes, as a fraction of their number; NaN is neutral."""
    max_fraction: float
    """Of the patch's voxels: a larger component stays."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What happens to each sample; neutral values leave it as it is. First axis: batch."""

    in_plane: bool
    """Whether the first of three axes is neither turned nor made coarser."""
    mirrored: NDArray[np.bool_]
    """Axes (batch, network axis)."""
    degrees: Numbers
    """Axes (batch, axis of rotation): three, or the one across the planes; 0 is neutral."""
    scaling: Numbers
    """Factors on what the patch sees, axes (batch, network axis); 1 is neutral."""
    elastic: Numbers
    """Smoothness, magnitude along each axis, both in patch sizes; axes (batch, 1 + axis)."""
    noise_std: Numbers
    """Axes (batch); 0 is neutral."""
    noise_seed: int
    """Of all that is drawn voxel by voxel."""
    blur: Numbers
    """Deviations in voxels, axes (batch, channel, network axis); 0 is neutral."""
    brightness: Numbers
    """Factors, axes (batch, channel); 1 is neutral, as in the following four."""
    contrast: Numbers
    zoom: Numbers
    inverted_gamma: Numbers
    gamma: Numbers
    shift: Numbers
    """Summands, axes (batch, channel); 0 is neutral."""
    dropped: NDArray[np.bool_]
    """Channels that are set to 0; axes (batch, channel)."""
    cascade: CascadeDrawn | None


def draw(preset: Preset, frame: Frame, rng: np.random.Generator) -> Drawn:
    """Draw what happens to each sample, by the preset's probabilities, ranges and laws."""
    n, per_channel = frame.n_samples, (frame.n_samples, frame.n_channels)
    n_axes = len(frame.patch_size)
    # first, in this order, what the preset "light" draws: runs of it stay the same for ever
    mirrored = rng.random((n, n_axes)) < preset.mirror
    noise = _strengths(preset.noise, (n,), rng)
    factors = _strengths(preset.brightness, per_channel, rng)
    exponents = _strengths(preset.gamma, per_channel, rng)
    return Drawn(
        in_plane=frame.in_plane,
        mirrored=mirrored,
        noise_std=_sometimes(preset.noise, noise, 0, rng),
        noise_seed=int(rng.integers(2**32)),
        brightness=_sometimes(preset.brightness, factors, 1, rng),
        gamma=_sometimes(preset.gamma, exponents, 1, rng),
        degrees=_degrees(preset, frame, rng),
        scaling=_scaling(preset, frame, rng),
        elastic=_elastic(preset, frame, rng),
        blur=_blur(preset, frame, rng),
        contrast=_changed(preset.contrast, per_channel, 1, rng),
        zoom=_changed(preset.low_resolution, per_channel, 1, rng),
        inverted_gamma=_changed(preset.inverted_gamma, per_channel, 1, rng),
        shift=_changed(preset.shift, per_channel, 0, rng),
        dropped=_dropped(preset.channel_dropout, per_channel, rng),
        cascade=_cascade(preset.cascade, frame, rng),
    )


def moves(drawn: Drawn, sample: int) -> bool:
    """Return whether a sample is turned, scaled or deformed, beyond mirroring."""
    return bool(
        drawn.degrees[sample].any()
        or (drawn.scaling[sample] != 1).any()
        or drawn.elastic[sample].any()
    )


def matrix_of(drawn: Drawn, sample: int) -> NDArray[np.float64]:
    """Return where a sample looks: positions in the case = matrix @ positions in the patch.

    Both are taken from the patch's centre. Rotations about the axes in turn, after the scaling,
    as batchgeneratorsv2 0.3.6 composes them; a single angle turns the last two axes.
    """
    scaling = drawn.scaling[sample].astype(np.float64)
    matrix = np.eye(len(scaling))
    angles = np.deg2rad(drawn.degrees[sample].astype(np.float64))
    planes = ((1, 2), (2, 0), (0, 1)) if len(angles) == 3 else ((-2, -1),)
    for angle, (a, b) in zip(angles, planes, strict=True):
        turn = np.eye(len(scaling))
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    turned: NDArray[np.float64] = matrix * scaling
    return turned


def _strengths(
    change: Change, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    if change.law == "normal":
        return rng.normal(change.low, change.high, shape)
    if change.law == "halves":
        lower = rng.uniform(change.low, 1, shape)
        upper = rng.uniform(1, change.high, shape)
        return np.where(rng.random(shape) < 0.5, lower, upper)
    values = rng.uniform(change.low, change.high, shape)
    if change.law == "reciprocal":
        return 1 / values
    return np.sqrt(values) if change.law == "root" else values


def _sometimes(
    change: Change, values: NDArray[np.float64], neutral: float, rng: np.random.Generator
) -> Numbers:
    """Keep the strengths of the samples, and of their channels, that are chosen."""
    chosen = rng.random((len(values), *(1,) * (values.ndim - 1))) < change.probability
    if change.per_channel < 1:
        chosen = chosen & (rng.random(values.shape) < change.per_channel)
    return np.where(chosen, values, neutral).astype(np.float32)


def _changed(
    change: Change, shape: tuple[int, ...], neutral: float, rng: np.random.Generator
) -> Numbers:
    return _sometimes(change, _strengths(change, shape, rng), neutral, rng)


def _degrees(preset: Preset, frame: Frame, rng: np.random.Generator) -> Numbers:
    flat = frame.in_plane or len(frame.patch_size) == 2
    limit = degrees_of(preset, frame.patch_size, in_plane=frame.in_plane)
    turn = Change(preset.rotation, -limit, limit)
    return _changed(turn, (frame.n_samples, 1 if flat else 3), 0, rng)


def _scaling(preset: Preset, frame: Frame, rng: np.random.Generator) -> Numbers:
    shape = (frame.n_samples, len(frame.patch_size))
    factors = _strengths(preset.scaling, shape, rng)
    alike = rng.random((frame.n_samples, 1)) >= preset.scaling_per_axis
    factors = np.where(alike, factors[:, -1:], factors)
    scaling = _sometimes(preset.scaling, factors, 1, rng)
    if frame.in_plane:
        scaling[:, 0] = 1
    return scaling


def _elastic(preset: Preset, frame: Frame, rng: np.random.Generator) -> Numbers:
    n, n_axes = frame.n_samples, len(frame.patch_size)
    width = _strengths(preset.elastic, (n, 1), rng)
    magnitudes = width * rng.uniform(*ELASTIC_MAGNITUDE, (n, n_axes))
    if frame.in_plane:
        magnitudes[:, 0] = 0
    return _sometimes(preset.elastic, np.concatenate([width, magnitudes], axis=1), 0, rng)


def _blur(preset: Preset, frame: Frame, rng: np.random.Generator) -> Numbers:
    n, n_channels, n_axes = frame.n_samples, frame.n_channels, len(frame.patch_size)
    deviations = _strengths(preset.blur, (n, n_channels, n_axes), rng)
    if not preset.blur_per_axis:
        deviations = np.broadcast_to(deviations[..., :1], deviations.shape)
    chosen = _changed(preset.blur, (n, n_channels), 0, rng) != 0
    return np.where(chosen[..., None], deviations, 0).astype(np.float32)


def _dropped(
    chance: float, per_channel: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the channels that go; of a sample that would lose all, one stays."""
    dropped = rng.random(per_channel) < chance
    kept = rng.integers(per_channel[1], size=per_channel[0])
    samples = np.arange(per_channel[0])
    dropped[samples, kept] &= ~dropped.all(axis=1)
    return dropped


def _cascade(
    cascade: Cascade | None, frame: Frame, rng: np.random.Generator
) -> CascadeDrawn | None:
    if cascade is None or not frame.cascade_labels:
        return None
    shape = (frame.n_samples, len(frame.cascade_labels))
    order = rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
    per_sample = Change(
        cascade.operator_probability, 1, len(OPERATORS), "uniform", cascade.per_label
    )
    removal = Change(cascade.removal_probability, 0, 1, "uniform", cascade.per_label)
    return CascadeDrawn(
        order=order,
        operator=_changed(per_sample, shape, 0, rng).astype(np.int64),
        radius=rng.uniform(*cascade.operator_radius, shape).astype(np.float32),
        removed=_changed(removal, shape, np.nan, rng),
        max_fraction=cascade.removal_max_fraction,
    )
