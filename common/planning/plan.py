"""The plan: every decision that all sites must share, as one record with one hash."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Discriminator, Tag, model_validator

from common.codec import content_hash, record
from common.errors import ConfigError
from common.planning.preparation import Preparation, Resampling

PLAN_SCHEMA = 1
Rules = Literal["paper", "v2", "v2-resenc-m", "v2-resenc-l", "v2-resenc-xl"]
TrainedRules = Rules
"""Those whose network is built here: all; v2-resenc-* plan for the architecture resenc-unet."""
ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres"]

Axis2 = tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
Axis3 = tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)], Annotated[int, Ge(1)]]
Spacing2 = tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]]
Spacing3 = tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]]
SupervisionWeights = Annotated[tuple[Annotated[float, Ge(0), Le(1)], ...], MinLen(1)]


@record
class PlannedFor:
    """What a plan was made for, besides images: how many cases, classes and how much memory."""

    n_training_cases: Annotated[int, Ge(1)]
    """Of the whole federation."""
    n_foreground_classes: Annotated[int, Ge(1)]
    memory_gb: Annotated[float, Gt(0)]
    """Of the smallest site's accelerator."""


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
    """One 3D network configuration. Axes are (z, y, x) after `Plan.transpose`, slowest first."""

    spacing_mm: Spacing3
    median_shape: tuple[float, float, float]
    """Median shape of the federation's cases at this spacing, in voxels, as the rules round it."""
    patch_size: Axis3
    batch_size: Annotated[int, Ge(1)]
    strides: tuple[Axis3, ...]
    """Strides of the downsampling steps only."""
    kernel_sizes: Annotated[tuple[Axis3, ...], MinLen(1)]
    """One more than strides; the last one is the bottleneck's."""
    features_per_stage: tuple[Annotated[int, Ge(1)], ...]
    batch_dice: bool
    """Whether the Dice loss sums over the batch before the ratio."""
    deep_supervision_weights: SupervisionWeights
    """Of the loss per decoder stage, finest first, summing to 1."""
    anisotropic_augmentation: bool = False
    """Whether the patch is too flat to be rotated, scaled or blurred out of its planes."""


@record
class Configuration2d:
    """The network of single slices, across the first axis after `Plan.transpose`."""

    spacing_mm: Spacing2
    median_shape: tuple[float, float]
    patch_size: Axis2
    batch_size: Annotated[int, Ge(1)]
    strides: tuple[Axis2, ...]
    """Strides of the downsampling steps only."""
    kernel_sizes: Annotated[tuple[Axis2, ...], MinLen(1)]
    """One more than strides; the last one is the bottleneck's."""
    features_per_stage: tuple[Annotated[int, Ge(1)], ...]
    batch_dice: bool
    deep_supervision_weights: SupervisionWeights
    """Of the loss per decoder stage, finest first, summing to 1."""


def _axes(configuration: object) -> str:
    """Return which record plain data mean, so that errors speak of that one only."""
    if isinstance(configuration, Mapping):
        spacing = configuration.get("spacing_mm")
        return "2d" if isinstance(spacing, Sequence) and len(spacing) == 2 else "3d"
    return "2d" if isinstance(configuration, Configuration2d) else "3d"


AnyConfiguration = Annotated[
    Annotated[Configuration, Tag("3d")] | Annotated[Configuration2d, Tag("2d")],
    Discriminator(_axes),
]


@record
class Plan:
    """What fingerprint and rules decide. All of it leaves the coordinator; none is per case."""

    schema: Annotated[int, Ge(1)]
    hash: str
    """SHA-256 of the canonical JSON of the plan with this field empty."""
    rules: Rules
    planned_for: PlannedFor
    channels: tuple[str, ...]
    transpose: tuple[int, int, int]
    """Which axis of the RAS+ (z, y, x) image each network axis is: largest spacing first."""
    preparation: Preparation = Preparation()
    """What is done to each image before its normalisation; nothing unless the run asks for it."""
    normalization: tuple[Normalization, ...]
    resampling: Resampling = Resampling()
    configurations: dict[ConfigurationName, AnyConfiguration]
    """By name; one that must not be planned is absent."""
    cascade: bool = False
    """Whether 3d_fullres has a second stage, whose input also holds the one-hot foreground that
    3d_lowres predicts."""
    edited: bool = False
    """Whether a person changed what the rules gave; then no site can derive it again."""
    limits: tuple[str, ...] = ()
    """What a run's configuration cut below the rules (for example the batch size), in words."""

    @model_validator(mode="after")
    def _two_axes_only_in_2d(self) -> "Plan":
        for name, configuration in self.configurations.items():
            if isinstance(configuration, Configuration2d) != (name == "2d"):
                expected = "two axes" if name == "2d" else "three axes"
                raise ValueError(f"configurations.{name}: expected {expected}")
        if self.cascade and not {"3d_fullres", "3d_lowres"} <= set(self.configurations):
            raise ValueError("cascade: expected 3d_fullres and 3d_lowres beside it")
        return self


def sealed(plan: Plan) -> Plan:
    """Return the plan with its hash filled in."""
    return replace(plan, hash=content_hash(replace(plan, hash="")))


def configuration_of(plan: Plan, name: ConfigurationName) -> AnyConfiguration:
    """Return a configuration of a plan.

    Raises:
        ConfigError: when the plan has none of that name.
    """
    found = plan.configurations.get(name)
    if found is None:
        raise ConfigError(
            f"plan {plan.hash[:16]}: expected the configuration {name}, "
            f"found {', '.join(plan.configurations) or 'none'}"
        )
    return found
