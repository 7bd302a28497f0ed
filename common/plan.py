"""The plan: every decision that all sites must share, as one record with one hash."""

from dataclasses import replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen

from common.codec import content_hash, record

PLAN_SCHEMA = 1
Rules = Literal["paper"]
ConfigurationName = Literal["3d_fullres"]

Axis3 = tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
Spacing3 = tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]]


@record
class Normalization:
    """How one channel is brought to a common scale."""

    channel: str
    scheme: Literal["z-score", "masked-z-score", "ct"]
    clip_low: float | None = None
    """CT only: 0.5 percentile of the federation's foreground, in HU."""
    clip_high: float | None = None
    mean: float | None = None
    std: float | None = None


@record
class Configuration:
    """One network configuration. Axes are (z, y, x) after `Plan.transpose`, slowest first."""

    spacing_mm: Spacing3
    median_shape: tuple[float, float, float]
    """Median shape of the federation's cases at the target spacing, in voxels, unrounded."""
    patch_size: Axis3
    batch_size: Annotated[int, Ge(1)]
    strides: tuple[Axis3, ...]
    """Strides of the downsampling steps only."""
    kernel_sizes: Annotated[tuple[Axis3, ...], MinLen(1)]
    """One more than strides; the last one is the bottleneck's."""
    features_per_stage: tuple[Annotated[int, Ge(1)], ...]
    batch_dice: bool


@record
class Plan:
    """What fingerprint and rules decide. All of it leaves the coordinator; none is per case."""

    schema: Annotated[int, Ge(1)]
    hash: str
    """SHA-256 of the canonical JSON of the plan with this field empty."""
    rules: Rules
    channels: tuple[str, ...]
    transpose: tuple[int, int, int]
    """Which axis of the RAS+ (z, y, x) image each network axis is: largest spacing first."""
    normalization: tuple[Normalization, ...]
    configurations: dict[ConfigurationName, Configuration]
    limits: tuple[str, ...] = ()
    """What a run's configuration cut below the rules (for example the batch size), in words."""


def sealed(plan: Plan) -> Plan:
    """Return the plan with its hash filled in."""
    return replace(plan, hash=content_hash(replace(plan, hash="")))
