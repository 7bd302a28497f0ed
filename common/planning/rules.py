"""The numbers and choices of the published planners: one table each, read by one planner.

Sources: "paper" is nnU-Net (arXiv 1904.08128v2) and the planner v2.1 of the paper's code
(MIC-DKFZ/nnUNet at dba763e1), called "code" below; the code decides where the text is not exact.
"v2" is nnunetv2 2.8.1, `ExperimentPlanner`; "v2-resenc-*" its `nnUNetPlannerResEnc*`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import Literal

from common.errors import ConfigError
from common.planning.plan import Rules
from common.planning.topology import PLAIN, FeatureMaps, Pooling


@dataclass(frozen=True)
class Budget:
    """What a patch of two, or of three, axes may cost."""

    start: Literal["median", "coarsest-axis", "volume"]
    """The first patch: the median shape, or that clipped by a cube in mm, whose edge in voxels
    holds along the coarsest axis or in the geometric mean of the axes."""
    start_edge_voxels: int
    """Without effect for "median"."""
    max_features: int
    counted_features: int
    """Of the first stage in the memory proxy, whatever the run wants."""
    reference_voxel_channels: float
    reference_batch_size: int
    """The batch that the reference is for."""
    fitted_batch_size: int
    """The patch shrinks until a batch of this size fits."""
    min_batch_size: int
    """Also when the largest share of the data set's voxels is less."""


@dataclass(frozen=True)
class RuleSet:
    """The numbers and choices of one published planner."""

    anisotropy: float
    in_plane_mm: Callable[[Sequence[float]], float]
    """Of the two other spacings, the one that a coarse axis is compared with."""
    low_percentile: float
    clamp_margin_mm: float
    rounds_every_case: bool
    """Whether the median shape is that of rounded shapes, or itself rounded."""
    slice_is_2d: bool
    """Whether data of a single slice get no 3D configuration."""
    pooling: Pooling
    base_features: int
    feature_maps: FeatureMaps
    counts_input: bool
    """Whether the memory proxy counts the input's channels."""
    reference_memory_gb: float
    whole_batch: Callable[[float], int]
    max_share_of_voxels: float
    lowres_factor: int
    """A cascade is wanted when the median case has more voxels than so many patches."""
    lowres_step: float
    three_axes: Budget
    two_axes: Budget


PAPER = RuleSet(
    anisotropy=3,  # methods "target spacing": in spacing and in voxels
    in_plane_mm=min,  # code
    low_percentile=10,  # methods "target spacing": spares thin slices from being blurred
    clamp_margin_mm=1e-5,  # code: keeps the clamped axis the coarsest, hence the first
    rounds_every_case=False,  # code
    slice_is_2d=False,  # code: has no such rule
    pooling="paper",
    base_features=32,  # methods "network topology"
    feature_maps=PLAIN,  # methods "network topology"
    counts_input=True,  # code
    reference_memory_gb=8.0,  # what 520e6 takes in fp16 at batch 2; fits the paper's 11 GB card
    whole_batch=floor,  # code
    max_share_of_voxels=0.05,  # methods "batch size"
    lowres_factor=4,  # code; the paper's text says 8, and so does the rule that halves the voxels
    lowres_step=1.01,  # code
    three_axes=Budget(
        start="coarsest-axis",  # code: isotropic in mm, then clipped by the median shape
        start_edge_voxels=512,
        max_features=320,  # methods "network topology"
        counted_features=32,
        reference_voxel_channels=520e6 * 32 / 30,  # code: made for 30 features, used with 32
        reference_batch_size=2,
        fitted_batch_size=2,  # methods "patch size"
        min_batch_size=2,  # methods "batch size"
    ),
    two_axes=Budget(
        start="median",  # code
        start_edge_voxels=0,
        max_features=512,  # methods "network topology"
        counted_features=30,  # code: never raised to 32
        reference_voxel_channels=19739648,  # code, for a batch of 50
        reference_batch_size=50,
        fitted_batch_size=2,  # methods "patch size"; the code refuses where the text shrinks
        min_batch_size=1,  # code: none; a batch has at least one slice
    ),
)

V2 = replace(
    PAPER,
    in_plane_mm=max,
    rounds_every_case=True,
    slice_is_2d=True,
    pooling="v2",
    counts_input=False,
    whole_batch=round,
    lowres_step=1.03,
    three_axes=replace(
        PAPER.three_axes, start="volume", start_edge_voxels=256, reference_voxel_channels=560e6
    ),
    two_axes=replace(
        PAPER.two_axes,
        start="volume",
        start_edge_voxels=2048,
        counted_features=32,
        reference_voxel_channels=85e6,
        reference_batch_size=12,
        min_batch_size=2,
    ),
)

RESIDUAL = FeatureMaps(  # two convolutions per block; a stem, or the first block's way around
    encoder=(1 + 2 * 1, 1 + 2 * 3, 1 + 2 * 4, 1 + 2 * 6),
    decoder=2,
)


def _residual_encoder(memory_gb: float, reference_3d: float, reference_2d: float) -> RuleSet:
    """Return the rules of one preset, each with the references of its own card."""
    return replace(
        V2,
        feature_maps=RESIDUAL,
        reference_memory_gb=memory_gb,
        max_share_of_voxels=1,  # all three presets lift the cap of 5 %
        three_axes=replace(V2.three_axes, reference_voxel_channels=reference_3d),
        two_axes=replace(  # shrinks until the whole reference batch fits
            V2.two_axes, reference_voxel_channels=reference_2d, fitted_batch_size=12
        ),
    )


RULE_SETS: dict[Rules, RuleSet] = {
    "paper": PAPER,
    "v2": V2,
    "v2-resenc-m": _residual_encoder(8.0, 680e6, 135e6),
    "v2-resenc-l": _residual_encoder(24.0, 2100e6, 380e6),
    "v2-resenc-xl": _residual_encoder(40.0, 3600e6, 560e6),
}


def rule_set(rules: Rules) -> RuleSet:
    """Return a table by its name.

    Raises:
        ConfigError: for a name that no table has.
    """
    if rules not in RULE_SETS:
        raise ConfigError(f"rules: expected one of {', '.join(RULE_SETS)}, found {rules!r}")
    return RULE_SETS[rules]
