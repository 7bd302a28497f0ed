"""The cascade: a coarser first stage for data of which a patch sees too little.

Source: nnU-Net (arXiv 1904.08128v2), methods "configurations"; the planner v2.1 of the paper's code
decides where the text is not exact (`common.planning.rules`).
"""

from dataclasses import dataclass
from math import prod

from common.errors import ConfigError
from common.planning.patch import MAX_STEPS, Demand, Fit, fitted, most_voxels
from common.planning.rules import RuleSet
from common.planning.topology import Lengths


@dataclass(frozen=True)
class Stage:
    """A spacing, the median shape at it, and the network that fits; in the network's order."""

    spacing_mm: Lengths
    median_shape: Lengths
    fit: Fit


def full_resolution(
    spacing_mm: Lengths, median_shape: Lengths, demand: Demand, table: RuleSet
) -> Stage:
    """Return 3d_fullres.

    Args:
        spacing_mm: the target spacing.
        median_shape: voxels at the target spacing, as the summary gives it.
        demand: memory, channels and cases of the plan.
        table: the rules.
    """
    median = median_shape if table.rounds_every_case else rounded(median_shape)
    fit = fitted(spacing_mm, median, prod(median), demand, table)
    return Stage(spacing_mm=spacing_mm, median_shape=median, fit=fit)


def low_resolution(
    full: Stage, median_shape: Lengths, demand: Demand, table: RuleSet
) -> Stage | None:
    """Return 3d_lowres, or None when full resolution alone does.

    The spacing grows until the patch sees a quarter of the median case: along the finer axes
    until they are within a factor of two of the coarsest, then along all. Ends because every step
    takes voxels off the median case while a patch keeps at least one, and at the latest after
    `MAX_STEPS`. Kept only if it has less than half of full resolution's voxels.

    Args:
        full: 3d_fullres.
        median_shape: voxels at its spacing, as the summary gives it.
        demand: memory, channels and cases of the plan.
        table: the rules.
    """
    spacing_mm, stage = full.spacing_mm, full
    ceiling = table.lowres_factor * most_voxels(demand, table)
    for _ in range(MAX_STEPS):
        voxels = case_voxels(full, spacing_mm, median_shape, table)
        if voxels <= ceiling:  # above it no patch sees enough: that saves most of the planning
            if spacing_mm != full.spacing_mm:
                stage = _stage_at(spacing_mm, full, median_shape, demand, table)
            if voxels <= table.lowres_factor * prod(stage.fit.network.patch_size):
                return stage if _is_halved(stage, full, median_shape, table) else None
        spacing_mm = _coarsened(spacing_mm, table.lowres_step)
    raise ConfigError(f"spacing: expected one that a cascade can start at, found {full.spacing_mm}")


def case_voxels(full: Stage, spacing_mm: Lengths, median_shape: Lengths, table: RuleSet) -> float:
    """Return the voxels of the median case at a coarser spacing.

    The paper's code cuts every axis to whole ones.
    """
    sizes = _resampled(full.spacing_mm, spacing_mm, median_shape)
    return prod(sizes) if table.rounds_every_case else prod(int(voxels) for voxels in sizes)


def rounded(shape: Lengths) -> Lengths:
    """Return whole voxels, at least one along each axis."""
    return tuple(float(max(1, round(voxels))) for voxels in shape)


def _stage_at(
    spacing_mm: Lengths, full: Stage, median_shape: Lengths, demand: Demand, table: RuleSet
) -> Stage:
    sizes = _resampled(full.spacing_mm, spacing_mm, median_shape)
    median = rounded(sizes)
    voxels = prod(sizes) if table.rounds_every_case else prod(median)
    return Stage(
        spacing_mm=spacing_mm,
        median_shape=median,
        fit=fitted(spacing_mm, median, voxels, demand, table),
    )


def _resampled(from_mm: Lengths, to_mm: Lengths, shape: Lengths) -> Lengths:
    return tuple(
        fine / coarse * voxels for fine, coarse, voxels in zip(from_mm, to_mm, shape, strict=True)
    )


def _coarsened(spacing_mm: Lengths, step: float) -> Lengths:
    """Return the next spacing: the axes finer than half of the coarsest first, then all."""
    coarsest = max(spacing_mm)
    behind = [coarsest / mm > 2 for mm in spacing_mm]
    grows = behind if any(behind) else [True] * len(spacing_mm)
    return tuple(mm * step if axis else mm for mm, axis in zip(spacing_mm, grows, strict=True))


def _is_halved(low: Stage, full: Stage, median_shape: Lengths, table: RuleSet) -> bool:
    if table.rounds_every_case:
        sizes = _resampled(full.spacing_mm, low.spacing_mm, median_shape)
        return prod(median_shape) / prod(sizes) >= 2
    return 2 * prod(low.median_shape) < prod(full.median_shape)
