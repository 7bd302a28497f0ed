"""From a patch and its spacing to a network: where to halve which axis, and how wide to look.

Source: nnU-Net (arXiv 1904.08128v2), methods "network topology"; planner v2.1 of the paper's code
(MIC-DKFZ/nnUNet at dba763e1). Works for any number of axes.
"""

from dataclasses import dataclass
from math import prod

MIN_EDGE_VOXELS = 4  # smallest feature map per axis; methods "network topology"
SIMILAR = 2  # axes whose spacings differ by less than this factor are treated alike; as above
KERNEL = 3  # as above; 1 along an axis of much larger spacing

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """The shape of a U-Net. May leave the coordinator in a plan."""

    patch_size: Axes
    """Voxels, padded up so that every stage is whole."""
    strides: tuple[Axes, ...]
    """Of the downsampling steps only; empty when no axis is long enough."""
    kernel_sizes: tuple[Axes, ...]
    """One more than strides; the last one is the bottleneck's."""
    divisor: Axes
    """What each axis of the patch is a multiple of."""


def topology(spacing_mm: tuple[float, ...], patch_size: Axes) -> Topology:
    """Halve the finest axes together until every one that may be halved is too short.

    The finest spacing is taken over all axes, also over those that are too short already: an axis
    that stopped thereby stops those that would become twice as coarse (ACDC ends at 8 voxels
    in-plane). Sizes are halved exactly, from the unpadded patch.

    Args:
        spacing_mm: per axis, above 0.
        patch_size: voxels per axis, at least 1.
    """
    spacing, size = list(spacing_mm), [float(voxels) for voxels in patch_size]
    strides: list[Axes] = []
    kernels: list[Axes] = []
    while any(stride := _stride(spacing, size)):
        strides.append(tuple(2 if halved else 1 for halved in stride))
        kernels.append(_kernel(spacing))
        spacing = [mm * step for mm, step in zip(spacing, strides[-1], strict=True)]
        size = [voxels / step for voxels, step in zip(size, strides[-1], strict=True)]
    kernels.append((KERNEL,) * len(spacing))  # the bottleneck looks along every axis
    divisor = tuple(2 ** sum(step[axis] == 2 for step in strides) for axis in range(len(spacing)))
    return Topology(
        patch_size=tuple(
            -(-voxels // unit) * unit for voxels, unit in zip(patch_size, divisor, strict=True)
        ),
        strides=tuple(strides),
        kernel_sizes=tuple(kernels),
        divisor=divisor,
    )


def features_per_stage(n_stages: int, first: int, most: int) -> tuple[int, ...]:
    """Return the channels of every stage: doubled at each step down, never above `most`."""
    return tuple(min(first * 2**stage, most) for stage in range(n_stages))


def voxel_channels(network: Topology, features: Axes, n_ends: int) -> int:
    """Return how many voxels times channels training keeps per patch, the memory proxy.

    Five feature maps per stage (two convolutions down, two up, one transposed), two at the
    bottleneck, the input and the output.

    Args:
        network: n downsampling steps.
        features: channels of each of the n + 1 stages.
        n_ends: input channels plus output classes, background included.

    Source: the paper's code, `Generic_UNet.compute_approx_vram_consumption`.
    """
    voxels = prod(network.patch_size)
    total = voxels * (5 * features[0] + n_ends)
    for step, stride in enumerate(network.strides, start=1):
        voxels //= prod(stride)
        total += voxels * features[step] * (5 if step < len(network.strides) else 2)
    return total


def shrunk(network: Topology, spacing_mm: tuple[float, ...], median_shape: Axes) -> Topology:
    """Return the next smaller network: one step less along the axis that covers most of the data.

    The step is the divisor that the patch would have *after* a whole step of its own divisor, so
    that 256 goes to 224 and not past it.

    Args:
        network: with an axis of more than one voxel.
        spacing_mm: per axis.
        median_shape: voxels per axis, at least 1.

    Source: planner v2.1 of the paper's code; of equally covered axes the last one shrinks.
    """
    patch = network.patch_size
    axis = max(
        (axis for axis in range(len(patch)) if patch[axis] > 1),
        key=lambda axis: (patch[axis] / median_shape[axis], axis),
    )
    trial = topology(spacing_mm, _less(patch, axis, network.divisor[axis]))
    return topology(spacing_mm, _less(patch, axis, trial.divisor[axis]))


def _less(patch: Axes, shortened: int, step: int) -> Axes:
    return tuple(
        voxels - step if axis == shortened else voxels for axis, voxels in enumerate(patch)
    )


def _stride(spacing_mm: list[float], size_voxels: list[float]) -> tuple[bool, ...]:
    """Return which axes are halved next."""
    finest = min(spacing_mm)
    return tuple(
        mm / finest < SIMILAR and voxels >= 2 * MIN_EDGE_VOXELS
        for mm, voxels in zip(spacing_mm, size_voxels, strict=True)
    )


def _kernel(spacing_mm: list[float]) -> Axes:
    """Return 3 along the largest group of similar axes (the first of equals), 1 elsewhere."""
    groups = [
        [mm / centre < SIMILAR and centre / mm < SIMILAR for mm in spacing_mm]
        for centre in spacing_mm
    ]
    largest = max(groups, key=sum)
    return tuple(KERNEL if similar else 1 for similar in largest)
