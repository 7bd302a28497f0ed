"""A data set in the few numbers that its plan's geometry rests on.

Source: nnU-Net (arXiv 1904.08128v2), methods "target spacing".
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, MinLen

from common.axes import three
from common.codec import record
from common.errors import ConfigError
from common.planning.fingerprint import TICKS_PER_MM, AxisHistograms, Fingerprint
from common.planning.histogram import percentile
from common.planning.plan import Rules, Spacing3
from common.planning.rules import RuleSet, rule_set


@record
class PlanSummary:
    """What the plan's geometry rests on (`summary.json`). May leave the coordinator."""

    name: str
    channels: Annotated[tuple[str, ...], MinLen(1)]
    n_training_cases: Annotated[int, Ge(1)]
    """Of the whole federation: a site's own number would cap its batch differently."""
    n_foreground_classes: Annotated[int, Ge(1)]
    target_spacing_mm: Spacing3
    median_shape_at_target: tuple[
        Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]
    ]
    """In voxels, in the order of the spacings; whether rounded per case is the rules' choice."""


@dataclass(frozen=True)
class SpacingChoice:
    """The target spacing and what it was chosen from, axes (z, y, x) of RAS+."""

    median_mm: Spacing3
    median_shape: tuple[float, float, float]
    """Voxels after the crop, before resampling."""
    coarsest: int
    """Axis of the largest median spacing."""
    in_plane_mm: float
    """The other spacing that the coarsest is compared with."""
    is_anisotropic: bool
    """Whether slices are thick and few, so that the 10th percentile counts along them."""
    low_mm: float
    """That percentile of the spacing along the coarsest axis."""
    target_ticks: tuple[float, float, float]

    @property
    def target_mm(self) -> Spacing3:
        """The target spacing."""
        z, y, x = (step / TICKS_PER_MM for step in self.target_ticks)
        return z, y, x


def summary_of(fingerprint: Fingerprint, rules: Rules = "paper") -> PlanSummary:
    """Return target spacing and median shape of a fingerprint, axes (z, y, x) of RAS+.

    The median of shapes that are rounded per case needs no shapes either: rounding keeps the
    order of the extents, axis by axis.

    Raises:
        ConfigError: when the fingerprint has no cases.
    """
    if fingerprint.n_cases == 0:
        raise ConfigError(f"fingerprint of {fingerprint.task}: expected at least one case, found 0")
    table = rule_set(rules)
    chosen = spacing_choice(fingerprint, table)
    resampled = _median_rounded_shape if table.rounds_every_case else _median_shape
    depth, height, width = (
        resampled(extents, step)
        for extents, step in zip(fingerprint.extents_ticks, chosen.target_ticks, strict=True)
    )
    return PlanSummary(
        name=fingerprint.task,
        channels=fingerprint.channels,
        n_training_cases=fingerprint.n_cases,
        n_foreground_classes=sum(value > 0 for value in fingerprint.labels),
        target_spacing_mm=chosen.target_mm,
        median_shape_at_target=(depth, height, width),
    )


def spacing_choice(fingerprint: Fingerprint, table: RuleSet) -> SpacingChoice:
    """Choose the median spacing; along slices that are thick and few, the 10th percentile.

    Args:
        fingerprint: of at least one case.
        table: the rules.
    """
    ticks = _medians(fingerprint.spacings_ticks)
    size = _medians(fingerprint.shapes_voxels)
    worst = ticks.index(max(ticks))
    in_plane = table.in_plane_mm([step for axis, step in enumerate(ticks) if axis != worst])
    shortest = min(voxels for axis, voxels in enumerate(size) if axis != worst)
    thick, few = (
        ticks[worst] > table.anisotropy * in_plane,
        size[worst] * table.anisotropy < shortest,
    )
    low = percentile(fingerprint.spacings_ticks[worst], table.low_percentile)
    target = list(ticks)
    if thick and few:
        target[worst] = low if low >= in_plane else in_plane + table.clamp_margin_mm * TICKS_PER_MM
    return SpacingChoice(
        median_mm=three(step / TICKS_PER_MM for step in ticks),
        median_shape=three(size),
        coarsest=worst,
        in_plane_mm=in_plane / TICKS_PER_MM,
        is_anisotropic=thick and few,
        low_mm=low / TICKS_PER_MM,
        target_ticks=three(target),
    )


def _median_shape(extents_ticks: Mapping[int, int], step_ticks: float) -> float:
    return percentile(extents_ticks, 50) / step_ticks


def _median_rounded_shape(extents_ticks: Mapping[int, int], step_ticks: float) -> float:
    shapes: Counter[int] = Counter()
    for extent, n_cases in extents_ticks.items():
        shapes[max(1, round(extent / step_ticks))] += n_cases
    return percentile(shapes, 50)


def _medians(histograms: AxisHistograms) -> list[float]:
    return [percentile(axis, 50) for axis in histograms]
