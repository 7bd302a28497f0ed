"""The numbers of the published planners: one table each, read by one planner.

Source: nnU-Net (arXiv 1904.08128v2) and the planner v2.1 of the paper's code (MIC-DKFZ/nnUNet at
dba763e1), called "code" below; the code decides where the text is not exact.
"""

from dataclasses import dataclass

from common.errors import ConfigError
from common.plan import Rules


@dataclass(frozen=True)
class RuleSet:
    """The numbers of one published planner."""

    anisotropy: float
    low_percentile: float
    clamp_margin_mm: float
    start_edge_voxels: int
    base_features: int
    max_features: int
    reference_voxel_channels: float
    reference_memory_gb: float
    reference_batch_size: int
    min_batch_size: int
    max_share_of_voxels: float


RULE_SETS: dict[Rules, RuleSet] = {
    "paper": RuleSet(
        anisotropy=3,  # methods "target spacing": in spacing and in voxels
        low_percentile=10,  # methods "target spacing": spares thin slices from being blurred
        clamp_margin_mm=1e-5,  # code: keeps the clamped axis the coarsest, hence the first
        start_edge_voxels=512,  # code: isotropic in mm, then clipped by the median shape
        base_features=32,  # methods "network topology"
        max_features=320,  # methods "network topology", 3D
        reference_voxel_channels=520e6 * 32 / 30,  # code: made for 30 features, used with 32
        reference_memory_gb=8.0,  # what 520e6 takes in fp16 at batch 2; fits the paper's 11 GB card
        reference_batch_size=2,  # code: the batch that the reference is for
        min_batch_size=2,  # methods "batch size", 3D: also when 5 % of the voxels are fewer
        max_share_of_voxels=0.05,  # methods "batch size"
    )
}


def rule_set(rules: Rules) -> RuleSet:
    """Return a table by its name.

    Raises:
        ConfigError: for a name that no table has.
    """
    if rules not in RULE_SETS:
        raise ConfigError(f"rules: expected one of {', '.join(RULE_SETS)}, found {rules!r}")
    return RULE_SETS[rules]
