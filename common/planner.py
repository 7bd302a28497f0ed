"""From the federation's fingerprint to its plan: the published rules, the same on every machine.

Coordinator and sites run this on the same merged fingerprint and must get the same hash. Only
sums, products, quotients and roundings are used, so that no mathematics library can differ.

Source: nnU-Net (arXiv 1904.08128v2), methods "blueprint parameters" and "inferred parameters",
and the planner v2.1 of the paper's code (MIC-DKFZ/nnUNet at dba763e1), which decides where the
text is not exact.
"""

from dataclasses import replace
from math import floor, isfinite, prod
from typing import Literal, TypeVar

from common.axes import Shape
from common.errors import ConfigError
from common.fingerprint import Fingerprint
from common.intensity import ct_channels, intensity_constants
from common.plan import PLAN_SCHEMA, Configuration, Normalization, Plan, Rules, Spacing3, sealed
from common.rules import RuleSet, rule_set
from common.summary import PlanSummary, summary_of
from common.topology import Axes, Topology, features_per_stage, shrunk, topology, voxel_channels

__all__ = ["PlanSummary", "plan", "plan_summary", "summary_of"]

T = TypeVar("T")


def plan(
    fingerprint: Fingerprint,
    *,
    memory_gb: float = 8.0,
    rules: Rules = "paper",
    base_features: int = 32,
    max_batch_size: int | None = None,
) -> Plan:
    """Return the plan of a federation, sealed with its hash.

    Args:
        fingerprint: of all training sites together, at least one case.
        memory_gb: accelerator memory of the smallest site, above 0; the reference that a patch
            must fit grows in proportion, 8 being the published one.
        rules: which published planner.
        base_features: features of the first stage that the run wants; never changes the patch.
        max_batch_size: the largest batch that the run can afford, at least 1.

    Raises:
        ConfigError: for no cases, CT without foreground, limits out of range, or too little memory
            for any patch.
    """
    return _planned(
        summary_of(fingerprint, rules),
        _normalization(fingerprint),
        rules=rules,
        memory_gb=memory_gb,
        base_features=base_features,
        max_batch_size=max_batch_size,
    )


def plan_summary(
    summary: PlanSummary,
    *,
    memory_gb: float = 8.0,
    rules: Rules = "paper",
    base_features: int = 32,
    max_batch_size: int | None = None,
) -> Plan:
    """Return the plan that follows from a data set's summary; arguments as in `plan`.

    A summary knows neither intensities nor what the crop removed: a CT channel gets no constants
    (such a plan cannot prepare data) and every other channel a z-score over the whole image. The
    plan's axes refer to the summary's.
    """
    return _planned(
        summary,
        tuple(
            Normalization(channel=name, scheme="ct" if ct_channels((name,)) else "z-score")
            for name in summary.channels
        ),
        rules=rules,
        memory_gb=memory_gb,
        base_features=base_features,
        max_batch_size=max_batch_size,
    )


def _planned(
    summary: PlanSummary,
    normalization: tuple[Normalization, ...],
    *,
    rules: Rules,
    memory_gb: float,
    base_features: int,
    max_batch_size: int | None,
) -> Plan:
    if not (isfinite(memory_gb) and memory_gb > 0):
        raise ConfigError(f"memory_gb: expected a number above 0, found {memory_gb}")
    if base_features < 1 or (max_batch_size is not None and max_batch_size < 1):
        raise ConfigError(
            f"expected base_features and max_batch_size of at least 1, "
            f"found {base_features} and {max_batch_size}"
        )
    table = rule_set(rules)
    transpose = _slowest_first(summary.target_spacing_mm)
    published = _full_resolution(summary, transpose, table, memory_gb)
    configuration, limits = _limited(published, table, base_features, max_batch_size)
    return sealed(
        Plan(
            schema=PLAN_SCHEMA,
            hash="",
            rules=rules,
            channels=summary.channels,
            transpose=transpose,
            normalization=normalization,
            configurations={"3d_fullres": configuration},
            limits=limits,
        )
    )


def _normalization(fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    return tuple(
        _ct_normalization(fingerprint, name)
        if name in fingerprint.ct
        else Normalization(channel=name, scheme=_z_score(fingerprint))
        for name in fingerprint.channels
    )


def _z_score(fingerprint: Fingerprint) -> Literal["z-score", "masked-z-score"]:
    """Return `masked-z-score` if the median share of voxels that the crop keeps is below 3/4.

    Sites tell only how many cases are below. A majority of all cases puts both middle values
    below, and with them the median; at exactly half, where the true median is the mean of one
    share below and one not below and may fall on either side, the whole image is used.
    """
    return "masked-z-score" if 2 * fingerprint.n_cropped > fingerprint.n_cases else "z-score"


def _ct_normalization(fingerprint: Fingerprint, channel: str) -> Normalization:
    constants = intensity_constants(fingerprint.ct[channel])
    return Normalization(
        channel=channel,
        scheme="ct",
        clip_low=constants.percentile_0_5,
        clip_high=constants.percentile_99_5,
        mean=constants.mean,
        std=constants.std,
    )


def _full_resolution(
    summary: PlanSummary, transpose: Shape, table: RuleSet, memory_gb: float
) -> Configuration:
    """Return 3d_fullres by the rules alone, axes in the network's order."""
    spacing = tuple(summary.target_spacing_mm[axis] for axis in transpose)
    unrounded = tuple(summary.median_shape_at_target[axis] for axis in transpose)
    median = tuple(max(1, round(voxels)) for voxels in unrounded)
    network, room = _fitted(spacing, median, summary, table, memory_gb)
    share = table.max_share_of_voxels * summary.n_training_cases * prod(median)
    covered = max(round(share / prod(network.patch_size)), table.min_batch_size)
    return Configuration(
        spacing_mm=_three(spacing),
        median_shape=_three(unrounded),
        patch_size=_three(network.patch_size),
        batch_size=min(floor(table.reference_batch_size * max(room, 1)), covered),
        strides=tuple(_three(stride) for stride in network.strides),
        kernel_sizes=tuple(_three(kernel) for kernel in network.kernel_sizes),
        features_per_stage=features_per_stage(
            len(network.kernel_sizes), table.base_features, table.max_features
        ),
        batch_dice=False,  # code: 3d_fullres sums Dice over the batch only beside a cascade
    )


def _fitted(
    spacing_mm: tuple[float, ...],
    median_shape: Axes,
    summary: PlanSummary,
    table: RuleSet,
    memory_gb: float,
) -> tuple[Topology, float]:
    """Return the largest network that fits, and how many times over it does.

    The start is a cube in mm, clipped by the median shape: larger patches see only padding.

    Raises:
        ConfigError: when not even one voxel fits.
    """
    coarsest = max(spacing_mm)
    start = tuple(
        min(round(coarsest / mm * table.start_edge_voxels), voxels)
        for mm, voxels in zip(spacing_mm, median_shape, strict=True)
    )
    reference = table.reference_voxel_channels * memory_gb / table.reference_memory_gb
    n_ends = len(summary.channels) + summary.n_foreground_classes + 1
    network = topology(spacing_mm, start)
    while (used := _memory(network, n_ends, table)) > reference:
        if prod(network.patch_size) == 1:
            raise ConfigError(f"memory_gb: expected enough for a patch, found {memory_gb}")
        network = shrunk(network, spacing_mm, median_shape)
    return network, reference / used


def _memory(network: Topology, n_ends: int, table: RuleSet) -> int:
    """Return the memory proxy, always with the published features, whatever the run wants."""
    features = features_per_stage(
        len(network.kernel_sizes), table.base_features, table.max_features
    )
    return voxel_channels(network, features, n_ends)


def _limited(
    published: Configuration, table: RuleSet, base_features: int, max_batch_size: int | None
) -> tuple[Configuration, tuple[str, ...]]:
    """Return what the run can afford of the published configuration, and each change in words."""
    batch_size = min(published.batch_size, max_batch_size or published.batch_size)
    limits = []
    if batch_size != published.batch_size:
        limits.append(f"batch_size {batch_size} instead of {published.batch_size} (max_batch_size)")
    if base_features != table.base_features:
        limits.append(
            f"{base_features} features in the first stage instead of {table.base_features} "
            "(base_features)"
        )
    features = features_per_stage(len(published.kernel_sizes), base_features, table.max_features)
    limited = replace(published, batch_size=batch_size, features_per_stage=features)
    return limited, tuple(limits)


def _slowest_first(spacing_mm: Spacing3) -> Shape:
    """Return the axis of the largest spacing (the first of equals), then the others in order."""
    slowest = spacing_mm.index(max(spacing_mm))
    return _three((slowest, *(axis for axis in range(3) if axis != slowest)))


def _three(values: tuple[T, ...]) -> tuple[T, T, T]:
    z, y, x = values
    return z, y, x
