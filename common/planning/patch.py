"""The largest patch whose network fits into memory, and how many of it make a batch.

Source: nnU-Net (arXiv 1904.08128v2), methods "patch size" and "batch size"; the numbers and where
they are from stand in `common.planning.rules`.
"""

from dataclasses import dataclass
from math import prod

from common.errors import ConfigError
from common.planning.rules import Budget, RuleSet
from common.planning.topology import (
    Axes,
    Lengths,
    Topology,
    features_per_stage,
    shrunk,
    topology,
    voxel_channels,
)

MAX_STEPS = 10_000  # data sets of any published kind need below 100


@dataclass(frozen=True)
class Demand:
    """What every configuration of one plan has in common."""

    n_channels: int
    n_outputs: int
    """Foreground classes and the background."""
    n_cases: int
    memory_gb: float


@dataclass(frozen=True)
class BatchChoice:
    """What the batch size is chosen from."""

    fitting: int
    """Patches that fit into memory together."""
    covering: int
    """Patches that hold the largest share of the data set's voxels that a batch may."""
    smallest: int

    @property
    def size(self) -> int:
        """What fits and is no larger a share; never below the smallest."""
        return max(min(self.fitting, self.covering), self.smallest)


@dataclass(frozen=True)
class Fit:
    """A network that fits into memory, axes in the network's order, and how it was found."""

    network: Topology
    batch: BatchChoice
    features: tuple[int, ...]
    """Channels per stage, as published."""
    tried: tuple[Axes, ...]
    """Patches from the first that the rules ask for to the one that fits, which is the last."""
    occupied: float
    """Share of the memory that a patch times the batch that must fit takes, at most 1."""


def fitted(
    spacing_mm: Lengths, median_shape: Lengths, case_voxels: float, demand: Demand, table: RuleSet
) -> Fit:
    """Return the largest patch that fits, its network and its batch.

    Ends because every step takes at least a voxel off the patch, and at the latest after
    `MAX_STEPS`.

    Args:
        spacing_mm: of two or three axes.
        median_shape: voxels along the same axes; larger patches would see only padding.
        case_voxels: of the median case along all three axes.
        demand: memory, channels and cases of the plan.
        table: the rules.

    Raises:
        ConfigError: when not even one voxel fits.
    """
    budget = budget_of(table, len(spacing_mm))
    reference = memory_for(budget, demand.memory_gb, table)
    network = topology(spacing_mm, _start(spacing_mm, median_shape, budget), table.pooling)
    tried: list[Axes] = []
    for _ in range(MAX_STEPS):
        tried.append(network.patch_size)
        used = memory(network, demand, table)
        needed = used / budget.reference_batch_size * budget.fitted_batch_size
        if needed <= reference:
            return Fit(
                network=network,
                batch=_batch_choice(network, reference / used, case_voxels, demand, table),
                features=features_per_stage(
                    len(network.kernel_sizes), table.base_features, budget.max_features
                ),
                tried=tuple(tried),
                occupied=needed / reference,
            )
        if prod(network.patch_size) == 1:
            break
        network = shrunk(network, spacing_mm, median_shape, table.pooling)
    raise ConfigError(f"memory_gb: expected enough for a patch, found {demand.memory_gb}")


def budget_of(table: RuleSet, n_axes: int) -> Budget:
    """Return what a patch of two or three axes may cost."""
    return table.two_axes if n_axes == 2 else table.three_axes


def memory(network: Topology, demand: Demand, table: RuleSet) -> int:
    """Return the memory proxy, always with the published features, whatever the run wants."""
    budget = budget_of(table, len(network.patch_size))
    features = features_per_stage(
        len(network.kernel_sizes), budget.counted_features, budget.max_features
    )
    n_ends = demand.n_outputs + (demand.n_channels if table.counts_input else 0)
    return voxel_channels(network, features, n_ends, table.feature_maps)


def most_voxels(demand: Demand, table: RuleSet) -> float:
    """Return what no 3D patch that fits exceeds: the finest stage alone would fill the memory."""
    finest = Topology(
        patch_size=(1, 1, 1), strides=(), kernel_sizes=((3, 3, 3),), divisor=(1, 1, 1)
    )
    budget = table.three_axes
    room = memory_for(budget, demand.memory_gb, table) / memory(finest, demand, table)
    return room * budget.reference_batch_size / budget.fitted_batch_size


def memory_for(budget: Budget, memory_gb: float, table: RuleSet) -> float:
    """Return what the memory proxy of the reference batch may be with so much memory."""
    return budget.reference_voxel_channels * memory_gb / table.reference_memory_gb


def _start(spacing_mm: Lengths, median_shape: Lengths, budget: Budget) -> Lengths:
    """Return the first patch, no longer than the median shape along any axis."""
    if budget.start == "median":
        return median_shape
    if budget.start == "coarsest-axis":
        coarsest = max(spacing_mm)
        edges = [coarsest / mm * budget.start_edge_voxels for mm in spacing_mm]
    else:
        per_mm = [1 / mm for mm in spacing_mm]
        n_axes = len(spacing_mm)
        scale = (budget.start_edge_voxels**n_axes / prod(per_mm)) ** (1 / n_axes)
        edges = [voxels * scale for voxels in per_mm]
    pairs = zip(edges, median_shape, strict=True)
    return tuple(min(max(1, round(edge)), voxels) for edge, voxels in pairs)


def _batch_choice(
    network: Topology, room: float, case_voxels: float, demand: Demand, table: RuleSet
) -> BatchChoice:
    """Return the batch that fits and the one that covers the largest share of the data's voxels.

    Args:
        network: what is trained.
        room: how many times over the reference batch fits.
        case_voxels: of the median case.
        demand: the cases of the whole federation.
        table: the rules.
    """
    budget = budget_of(table, len(network.patch_size))
    share = table.max_share_of_voxels * (case_voxels * demand.n_cases)
    return BatchChoice(
        fitting=table.whole_batch(room * budget.reference_batch_size),
        covering=round(share / prod(network.patch_size)),
        smallest=budget.min_batch_size,
    )


def is_anisotropic(patch_size: Axes, table: RuleSet) -> bool:
    """Return whether a 3D patch is too flat to be augmented out of its planes.

    Source: the paper's code, `do_dummy_2D_data_aug`.
    """
    return max(patch_size) / patch_size[0] > table.anisotropy
