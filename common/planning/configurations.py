"""The plan's configurations: by the rules alone, and what a run can afford of them.

Source: nnU-Net (arXiv 1904.08128v2), methods "inferred parameters"; the numbers and where they are
from stand in `common.planning.rules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

from common.axes import Shape, three
from common.planning.cascade import Stage, full_resolution, low_resolution, rounded
from common.planning.patch import Demand, budget_of, fitted, is_anisotropic
from common.planning.plan import AnyConfiguration, Configuration, Configuration2d, ConfigurationName
from common.planning.rules import RuleSet
from common.planning.summary import PlanSummary
from common.planning.topology import Lengths, features_per_stage, supervision_weights

T = TypeVar("T")


@dataclass(frozen=True)
class Stages:
    """What is planned at which spacing, before it becomes configurations."""

    slices: Stage
    """2d, of two axes."""
    full: Stage | None
    """3d_fullres; none for single slices, where the rules say so."""
    low: Stage | None
    """3d_lowres; none where a patch sees enough of the median case."""


def stages(summary: PlanSummary, transpose: Shape, demand: Demand, table: RuleSet) -> Stages:
    """Fit every network, axes in the network's order."""
    spacing = tuple(summary.target_spacing_mm[axis] for axis in transpose)
    shape = tuple(summary.median_shape_at_target[axis] for axis in transpose)
    slices = _slices(spacing, shape, demand, table)
    if table.slice_is_2d and shape[0] == 1:
        return Stages(slices, None, None)
    full = full_resolution(spacing, shape, demand, table)
    return Stages(slices, full, low_resolution(full, shape, demand, table))


def published(planned: Stages, table: RuleSet) -> dict[ConfigurationName, AnyConfiguration]:
    """Return every configuration by the rules alone."""
    made: dict[ConfigurationName, AnyConfiguration] = {"2d": _two_axes(planned.slices)}
    if planned.full is not None:
        # Code: with a cascade, full resolution and its second stage sum Dice over the batch.
        cascaded = planned.low is not None
        made["3d_fullres"] = _three_axes(planned.full, table, batch_dice=cascaded)
    if planned.low is not None:
        made["3d_lowres"] = _three_axes(planned.low, table, batch_dice=False)
    return made


def _slices(spacing_mm: Lengths, median_shape: Lengths, demand: Demand, table: RuleSet) -> Stage:
    """Return 2d: slices across the first axis, which is never resampled."""
    median = median_shape if table.rounds_every_case else rounded(median_shape)
    fit = fitted(spacing_mm[1:], median[1:], prod(median), demand, table)
    return Stage(spacing_mm=spacing_mm[1:], median_shape=median[1:], fit=fit)


def _two_axes(stage: Stage) -> Configuration2d:
    fit = stage.fit
    return Configuration2d(
        spacing_mm=_two(stage.spacing_mm),
        median_shape=_two(stage.median_shape),
        patch_size=_two(fit.network.patch_size),
        batch_size=fit.batch.size,
        strides=tuple(_two(stride) for stride in fit.network.strides),
        kernel_sizes=tuple(_two(kernel) for kernel in fit.network.kernel_sizes),
        features_per_stage=fit.features,
        batch_dice=True,
        deep_supervision_weights=supervision_weights(len(fit.network.strides)),
    )


def _three_axes(stage: Stage, table: RuleSet, *, batch_dice: bool) -> Configuration:
    network = stage.fit.network
    return Configuration(
        spacing_mm=three(stage.spacing_mm),
        median_shape=three(stage.median_shape),
        patch_size=three(network.patch_size),
        batch_size=stage.fit.batch.size,
        strides=tuple(three(stride) for stride in network.strides),
        kernel_sizes=tuple(three(kernel) for kernel in network.kernel_sizes),
        features_per_stage=stage.fit.features,
        batch_dice=batch_dice,
        deep_supervision_weights=supervision_weights(len(network.strides)),
        anisotropic_augmentation=is_anisotropic(network.patch_size, table),
    )


def limited(
    configuration: AnyConfiguration, table: RuleSet, base_features: int, max_batch_size: int | None
) -> AnyConfiguration:
    """Return what the run can afford of a published configuration."""
    most = budget_of(table, len(configuration.patch_size)).max_features
    return replace(
        configuration,
        batch_size=min(configuration.batch_size, max_batch_size or configuration.batch_size),
        features_per_stage=features_per_stage(len(configuration.kernel_sizes), base_features, most),
    )


def limits(
    before: Mapping[ConfigurationName, AnyConfiguration],
    after: Mapping[ConfigurationName, AnyConfiguration],
    table: RuleSet,
    base_features: int,
) -> tuple[str, ...]:
    """Return each change in words; of a batch without a name, 3d_fullres is meant."""
    lines = []
    for name, found in after.items():
        most = before[name].batch_size
        if found.batch_size != most:
            prefix = "" if name == "3d_fullres" else f"{name}: "
            lines.append(
                f"{prefix}batch_size {found.batch_size} instead of {most} (max_batch_size)"
            )
    if base_features != table.base_features:
        lines.append(
            f"{base_features} features in the first stage instead of {table.base_features} "
            "(base_features)"
        )
    return tuple(lines)


def _two(values: tuple[T, ...]) -> tuple[T, T]:
    y, x = values
    return y, x
