"""The intensity changes that `augmentation.py` draws, done in place on whatever device.

Own code, because it is faster than the ready-made parts at the same augmentation: see
`benchmarks/loading.py`. Wide separable changes are one small matrix per axis, which is exact and
runs at the speed of matrix products on processors and accelerators alike.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from client.batches.augmentation import Drawn
from common.augmentation import Preset

RANGE_FLOOR: Final = np.float32(1e-7)  # keeps a constant channel from dividing by 0; nnU-Net 1.7.1

NormalNoise: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""Gives standard normal numbers of a shape, the next ones at every call."""


def normal_noise(seed: int, device: torch.device) -> NormalNoise:
    """Return a source of noise that is made on the device where it is used."""
    if device.type == "cpu":
        rng = np.random.default_rng(seed)  # its numbers do not depend on torch's threads
        return lambda shape: torch.from_numpy(rng.standard_normal(shape, np.float32))
    generator = torch.Generator(device).manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator, device=device)


def change_intensities(
    images: Tensor,
    drawn: Drawn,
    sample: int,
    preset: Preset,
    noise: NormalNoise,
    masked: Sequence[bool] = (),
) -> None:
    """Change the intensities of one sample in place, in nnU-Net's order.

    Args:
        images: axes (channel, network axes), each channel contiguous.
        drawn: of the batch.
        sample: index into the batch.
        preset: says how low resolution and gamma are done.
        noise: of the batch; asked once per channel if the sample gets noise.
        masked: which channels are 0 outside the brain, by their normalisation; empty for none.
    """
    inside = None
    if preset.outside_stays_zero and any(masked) and _changes_zero(drawn, sample):
        inside = _inside(images, masked)
    for channel, volume in enumerate(images):
        if drawn.noise_std[sample] > 0:
            volume.add_(noise(tuple(volume.shape)).mul_(float(drawn.noise_std[sample])))
        _change(volume, drawn, (sample, channel), preset)
        if inside is not None and masked[channel]:
            volume.mul_(inside)
        if drawn.dropped[sample, channel]:
            volume.zero_()


def _change(volume: Tensor, drawn: Drawn, at: tuple[int, int], preset: Preset) -> None:
    if drawn.blur[at].any():
        blur(volume, drawn.blur[at].tolist())
    if drawn.brightness[at] != 1:
        volume.mul_(float(drawn.brightness[at]))
    if drawn.contrast[at] != 1:
        stretch_contrast(volume, float(drawn.contrast[at]))
    if drawn.zoom[at] != 1:
        flat = drawn.in_plane
        zooms = [
            1.0 if flat and axis == 0 else float(drawn.zoom[at]) for axis in range(volume.ndim)
        ]
        make_coarse(volume, zooms, preset.low_resolution_order)
    if drawn.inverted_gamma[at] != 1:
        volume.neg_()
        bend(volume, drawn.inverted_gamma[at], keep_statistics=preset.gamma_keeps_statistics)
        volume.neg_()
    if drawn.shift[at] != 0:
        volume.add_(float(drawn.shift[at]))
    if drawn.gamma[at] != 1:
        bend(volume, drawn.gamma[at], keep_statistics=preset.gamma_keeps_statistics)


def blur(volume: Tensor, deviations: Sequence[float]) -> None:
    """Smooth with a Gaussian kernel, cut off at 4 deviations, reflected at the border.

    Args:
        volume: changed in place.
        deviations: along each axis, in voxels; 0 leaves an axis as it is.
    """
    for axis, (size, deviation) in enumerate(zip(volume.shape, deviations, strict=True)):
        radius = int(4 * deviation + 0.5)
        if radius == 0 or size == 1:
            continue
        weights = np.exp(-0.5 * (np.arange(radius + 1) / deviation) ** 2)
        weights /= weights[0] + 2 * weights[1:].sum()
        bordered = volume.index_select(axis, _reflected(size, radius).to(volume.device))
        volume.mul_(float(weights[0]))
        for distance in range(1, radius + 1):  # a sum of shifted volumes is fast for short kernels
            for start in (radius - distance, radius + distance):
                shifted = bordered.narrow(axis, start, size)
                volume.add_(shifted, alpha=float(weights[distance]))


def stretch_contrast(volume: Tensor, factor: float) -> None:
    """Move intensities away from (above 1) or towards their mean, within their range."""
    low, high = volume.aminmax()
    mean = volume.mean()
    volume.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)


def make_coarse(volume: Tensor, zooms: Sequence[float], order: Literal[1, 3]) -> None:
    """Keep the nearest voxels of a coarser grid, and bring them back with a spline.

    Args:
        volume: changed in place.
        zooms: size of the coarser grid along each axis, as a fraction of the volume's.
        order: 1 is linear, 3 cubic.
    """
    kernels: list[Tensor | None] = []
    coarse = volume
    for axis, (size, zoom) in enumerate(zip(volume.shape, zooms, strict=True)):
        kept = max(1, round(size * zoom))
        kernels.append(None if kept == size else refining(kept, size, order))
        centres = (torch.arange(kept, device=volume.device) + 0.5) * (size / kept)
        coarse = coarse if kept == size else coarse.index_select(axis, centres.long())
    volume.copy_(along_axes(coarse, kernels))


def bend(volume: Tensor, exponent: np.float32, *, keep_statistics: bool) -> None:
    """Raise intensities to a power within their range, then restore their statistics or range."""
    low, high = (np.float32(extreme.item()) for extreme in volume.aminmax())
    span = high - low + RANGE_FLOOR
    mean, deviation = _moments(volume)
    volume.sub_(float(low)).div_(float(span))
    _raise_to(volume, exponent)
    if keep_statistics:
        bent_mean, bent_deviation = _moments(volume)
        volume.sub_(float(bent_mean)).div_(float(bent_deviation + RANGE_FLOOR))
        volume.mul_(float(deviation)).add_(float(mean))
    else:
        volume.mul_(float(span)).add_(float(low))


def along_axes(volume: Tensor, kernels: Sequence[Tensor | None]) -> Tensor:
    """Return the volume with a matrix (size after, size before) applied along each axis.

    Args:
        volume: one kernel per axis.
        kernels: None leaves an axis as it is.
    """
    for axis, kernel in enumerate(kernels):
        if kernel is None:
            continue
        placed = kernel.to(volume.device)
        if axis == volume.ndim - 1:
            volume = volume @ placed.T
        else:
            before, after = volume.shape[:axis], volume.shape[axis + 1 :]
            columns = volume.reshape(*before, volume.shape[axis], -1)
            volume = (placed @ columns).reshape(*before, len(placed), *after)
    return volume


def smoothing(size: int, deviation: float) -> Tensor:
    """Return the matrix of a wide Gaussian filter, cut off at 4 deviations, on a ring."""
    matrix = ndimage.gaussian_filter1d(np.eye(size), deviation, axis=0, mode="wrap")
    return torch.from_numpy(matrix.astype(np.float32))


@lru_cache(maxsize=512)  # a few sizes per patch, each a few KiB
def refining(coarse: int, fine: int, order: Literal[1, 3]) -> Tensor:
    """Return the matrix that brings `coarse` voxels to `fine` ones of the same extent."""
    matrix = ndimage.zoom(
        np.eye(coarse), (fine / coarse, 1), order=order, mode="nearest", grid_mode=True
    )
    return torch.from_numpy(matrix.astype(np.float32))


@lru_cache(maxsize=512)
def _reflected(size: int, radius: int) -> Tensor:
    """Return which voxel stands at each position from `-radius` on; the border voxel twice."""
    return torch.from_numpy(np.pad(np.arange(size), radius, mode="symmetric"))


def _inside(images: Tensor, masked: Sequence[bool]) -> Tensor:
    """Return 1 where any masked channel is not 0, else 0."""
    volumes = [volume for volume, is_masked in zip(images, masked, strict=True) if is_masked]
    inside: Tensor = volumes[0] != 0
    for volume in volumes[1:]:
        inside |= volume != 0
    return inside.float()


def _changes_zero(drawn: Drawn, sample: int) -> bool:
    """Return whether a 0 of the sample may become another number."""
    factors = (drawn.contrast, drawn.zoom, drawn.inverted_gamma, drawn.gamma)
    summands = (drawn.noise_std, drawn.blur, drawn.shift)
    return any((x[sample] != 1).any() for x in factors) or any(x[sample].any() for x in summands)


def _moments(volume: Tensor) -> tuple[np.float32, np.float32]:
    """Return mean and population deviation; on the CPU to the last bit as numpy sums."""
    if volume.device.type == "cpu":
        array: NDArray[np.float32] = volume.numpy()
        return array.mean(), array.std()
    deviation, mean = torch.std_mean(volume, correction=0)
    return np.float32(mean.item()), np.float32(deviation.item())


def _raise_to(volume: Tensor, exponent: np.float32) -> None:
    if volume.device.type == "cpu":
        array: NDArray[np.float32] = volume.numpy()
        np.power(array, exponent, out=array)
    else:
        volume.pow_(float(exponent))
