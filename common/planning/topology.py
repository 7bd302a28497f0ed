"""From a patch and its spacing to a network: where to halve which axis, and how wide to look.

Source: nnU-Net (arXiv 1904.08128v2), methods "network topology"; planner v2.1 of the paper's code
(MIC-DKFZ/nnUNet at dba763e1) and nnunetv2 2.8.1, `get_pool_and_conv_props`. Works for any number
of axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

MIN_EDGE_VOXELS = 4  # smallest feature map per axis; methods "network topology"
MIN_EDGE_ALONE_VOXELS = 6  # "v2": when it is the only axis that is halved
SIMILAR = 2  # axes whose spacings differ by less than this factor are treated alike; as above
KERNEL = 3  # as above; 1 along an axis of much larger spacing

Axes = tuple[int, ...]
Lengths = tuple[float, ...]
Pooling = Literal["paper", "v2"]


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


@dataclass(frozen=True)
class FeatureMaps:
    """How many feature maps of its width a stage keeps for the backward pass."""

    encoder: Axes
    """Per stage from the finest; the last one stands for all that follow."""
    decoder: int
    """Per stage above the bottleneck, the transposed convolution's included."""


def topology(spacing_mm: Lengths, patch_size: Lengths, pooling: Pooling = "paper") -> Topology:
    """Halve the finest axes together until every one that may be halved is too short.

    Ends because every round halves an axis of at least eight voxels. "paper" halves exactly, from
    the unpadded patch; "v2" rounds up.

    Args:
        spacing_mm: per axis, above 0.
        patch_size: voxels per axis, above 0; a median of rounded shapes may end in a half.
        pooling: which planner's rules choose axes and kernels.
    """
    spacing, size = list(spacing_mm), [float(voxels) for voxels in patch_size]
    halved = _halved_paper if pooling == "paper" else _halved_v2
    strides: list[Axes] = []
    kernels: list[Axes] = []
    while any(chosen := halved(spacing, size)):
        wide = _kernel_paper(spacing) if pooling == "paper" else _kernel_v2(spacing, kernels)
        kernels.append(wide)
        strides.append(tuple(2 if axis else 1 for axis in chosen))
        spacing = [mm * step for mm, step in zip(spacing, strides[-1], strict=True)]
        halves = [voxels / 2 if pooling == "paper" else float(ceil(voxels / 2)) for voxels in size]
        size = [
            half if axis else whole for axis, half, whole in zip(chosen, halves, size, strict=True)
        ]
    kernels.append((KERNEL,) * len(spacing))  # the bottleneck looks along every axis
    divisor = tuple(prod(step[axis] for step in strides) for axis in range(len(spacing)))
    padded = (ceil(voxels / unit) * unit for voxels, unit in zip(patch_size, divisor, strict=True))
    return Topology(
        patch_size=tuple(padded),
        strides=tuple(strides),
        kernel_sizes=tuple(kernels),
        divisor=divisor,
    )


def features_per_stage(n_stages: int, first: int, most: int) -> tuple[int, ...]:
    """Return the channels of every stage: doubled at each step down, never above `most`."""
    return tuple(min(first * 2**stage, most) for stage in range(n_stages))


def supervision_weights(n_steps: int) -> tuple[float, ...]:
    """Return the loss weight per decoder stage, finest first, summing to 1.

    Halves per stage; the coarsest decoder stage gets 0, unless it is the only one.

    Args:
        n_steps: downsampling steps, as many as decoder stages; without any, the one stage is all.

    Source: the paper's code, `nnUNetTrainerV2`; nnunetv2 2.8.1, `nnUNetTrainer._build_loss`.
    """
    raw = [0.5**stage for stage in range(max(1, n_steps))]
    if n_steps > 1:
        raw[-1] = 0.0
    return tuple(weight / sum(raw) for weight in raw)


PLAIN = FeatureMaps(encoder=(2,), decoder=3)  # two convolutions on either way, one transposed


def voxel_channels(
    network: Topology, features: Axes, n_ends: int, maps: FeatureMaps = PLAIN
) -> int:
    """Return how many voxels times channels training keeps per patch, the memory proxy.

    Args:
        network: n downsampling steps.
        features: channels of each of the n + 1 stages.
        n_ends: channels at full resolution besides, of the input and the output.
        maps: of every stage; the finest has a decoder even without any step down.

    Source: the paper's code, `Generic_UNet.compute_approx_vram_consumption`; nnunetv2 2.8.1,
    `compute_conv_feature_map_size`.
    """
    return sum(voxel_channels_per_stage(network, features, n_ends, maps))


def voxel_channels_per_stage(
    network: Topology, features: Axes, n_ends: int, maps: FeatureMaps = PLAIN
) -> tuple[int, ...]:
    """Return the parts of `voxel_channels`, finest stage first; the ends belong to the finest."""
    voxels, parts = prod(network.patch_size), list[int]()
    for stage, width in enumerate(features):
        if stage > 0:
            voxels //= prod(network.strides[stage - 1])
        encoder = maps.encoder[min(stage, len(maps.encoder) - 1)]
        decoder = maps.decoder if stage == 0 or stage < len(network.strides) else 0
        parts.append(voxels * (width * (encoder + decoder) + (n_ends if stage == 0 else 0)))
    return tuple(parts)


def shrunk(
    network: Topology, spacing_mm: Lengths, median_shape: Lengths, pooling: Pooling = "paper"
) -> Topology:
    """Return the next smaller network: one step less along the axis that covers most of the data.

    The step is the divisor that the patch would have *after* a whole step of its own divisor, so
    that 256 goes to 224 and not past it.

    Args:
        network: with an axis of more than one voxel.
        spacing_mm: per axis.
        median_shape: voxels per axis, above 0.
        pooling: as in `topology`.

    Source: planner v2.1 of the paper's code; of equally covered axes the last one shrinks.
    """
    patch = network.patch_size
    axis = max(
        (axis for axis in range(len(patch)) if patch[axis] > 1),
        key=lambda axis: (patch[axis] / median_shape[axis], axis),
    )
    trial = topology(spacing_mm, _less(patch, axis, network.divisor[axis]), pooling)
    if trial.divisor[axis] == network.divisor[axis]:
        return trial
    return topology(spacing_mm, _less(patch, axis, trial.divisor[axis]), pooling)


def _less(patch: Axes, shortened: int, step: int) -> Axes:
    return tuple(
        voxels - step if axis == shortened else voxels for axis, voxels in enumerate(patch)
    )


def _halved_paper(spacing_mm: Sequence[float], size_voxels: Sequence[float]) -> tuple[bool, ...]:
    """Return which axes are halved next: those about as fine as the finest of *all* axes.

    An axis that is too short thereby stops those that would become twice as coarse (ACDC ends at
    8 voxels in-plane).
    """
    finest = min(spacing_mm)
    return tuple(
        mm / finest < SIMILAR and voxels >= 2 * MIN_EDGE_VOXELS
        for mm, voxels in zip(spacing_mm, size_voxels, strict=True)
    )


def _halved_v2(spacing_mm: Sequence[float], size_voxels: Sequence[float]) -> tuple[bool, ...]:
    """Return which axes are halved next: those about as fine as the finest that still can be."""
    long_enough = [voxels >= 2 * MIN_EDGE_VOXELS for voxels in size_voxels]
    candidates = [mm for mm, able in zip(spacing_mm, long_enough, strict=True) if able]
    chosen = tuple(
        able and mm / min(candidates) < SIMILAR
        for mm, able in zip(spacing_mm, long_enough, strict=True)
    )
    if sum(chosen) == 1 and size_voxels[chosen.index(True)] < 2 * MIN_EDGE_ALONE_VOXELS:
        return (False,) * len(chosen)
    return chosen


def _kernel_paper(spacing_mm: Sequence[float]) -> Axes:
    """Return 3 along the largest group of similar axes (the first of equals), 1 elsewhere."""
    groups = [
        [mm / centre < SIMILAR and centre / mm < SIMILAR for mm in spacing_mm]
        for centre in spacing_mm
    ]
    largest = max(groups, key=sum)
    return tuple(KERNEL if similar else 1 for similar in largest)


def _kernel_v2(spacing_mm: Sequence[float], earlier: Sequence[Axes]) -> Axes:
    """Return 3 along axes that are, or were in an earlier stage, similar to the finest."""
    before = earlier[-1] if earlier else (1,) * len(spacing_mm)
    finest = min(spacing_mm)
    return tuple(
        KERNEL if width == KERNEL or mm / finest < SIMILAR else 1
        for mm, width in zip(spacing_mm, before, strict=True)
    )
