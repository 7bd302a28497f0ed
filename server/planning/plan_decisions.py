"""Why a plan is as it is: each decision with its rule and the numbers that it came from.

Nothing is decided here. The planner's own functions run again and keep how they arrived at each
number; this module says it in words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from common.axes import times
from common.planning.cascade import Stage, case_voxels
from common.planning.configurations import Stages
from common.planning.fingerprint import Fingerprint
from common.planning.patch import budget_of
from common.planning.plan import Configuration, ConfigurationName, Plan
from common.planning.rules import RuleSet, rule_set
from common.planning.summary import PlanSummary, spacing_choice
from common.planning.topology import MIN_EDGE_VOXELS, SIMILAR

AXES = "zyx"


@dataclass(frozen=True)
class Decision:
    """One choice of the planner, in words."""

    what: str
    chosen: str
    rule: str
    numbers: str


def data_decisions(
    plan: Plan, summary: PlanSummary, fingerprint: Fingerprint | None
) -> tuple[Decision, ...]:
    """Return what was decided for all configurations together.

    Args:
        plan: what was planned.
        summary: what its geometry rests on.
        fingerprint: what the summary was made from; None where it was given.
    """
    table = rule_set(plan.rules)
    spacing = (
        _spacing(fingerprint, table)
        if fingerprint is not None
        else Decision(
            "target spacing", _mm(summary.target_spacing_mm), "given", "the summary says it"
        )
    )
    order = ", ".join(AXES[axis] for axis in plan.transpose)
    return (
        spacing,
        Decision(
            "axis order",
            order,
            "the largest spacing first, the others in their order (paper's code)",
            f"target spacing {_mm(summary.target_spacing_mm)} along z, y, x",
        ),
        *_normalization(plan, fingerprint),
        *_preparation(plan),
    )


def stage_decisions(plan: Plan, name: ConfigurationName, planned: Stages) -> tuple[Decision, ...]:
    """Return what was decided for one configuration."""
    table = rule_set(plan.rules)
    stages = {"2d": planned.slices, "3d_fullres": planned.full, "3d_lowres": planned.low}
    stage, configuration = stages[name], plan.configurations[name]
    if stage is None:
        return ()
    decisions = [_patch(stage, plan, table), _strides(stage, table), _batch(stage, plan, table)]
    if isinstance(configuration, Configuration):
        decisions.append(_flatness(configuration, table))
    decisions.append(
        Decision(
            "Dice over the batch",
            "yes" if configuration.batch_dice else "no",
            "summed over the batch in 2d and at full resolution after a cascade (paper's code)",
            "a cascade is planned" if plan.cascade else "no cascade is planned",
        )
    )
    weights = ", ".join(f"{weight:.3g}" for weight in configuration.deep_supervision_weights)
    decisions.append(
        Decision(
            "deep supervision",
            weights,
            "weights halve per decoder stage, the coarsest has none (paper's code)",
            f"{len(configuration.deep_supervision_weights)} decoder stages",
        )
    )
    return tuple(decisions)


def cascade_decision(plan: Plan, summary: PlanSummary, planned: Stages) -> Decision:
    """Return whether a coarser first stage is planned, and why."""
    table, full = rule_set(plan.rules), planned.full
    rule = (
        f"planned when the median case has more voxels than {table.lowres_factor} patches, at the "
        f"first spacing ({table.lowres_step:g} times coarser each step) where it has not, if that "
        "halves the voxels (paper's code)"
    )
    if full is None:
        return Decision("3d_lowres", "not planned", rule, "single slices have no 3D configuration")
    median = tuple(summary.median_shape_at_target[axis] for axis in plan.transpose)
    voxels = case_voxels(full, full.spacing_mm, median, table)
    ceiling = table.lowres_factor * prod(full.fit.network.patch_size)
    numbers = (
        f"{voxels:,.0f} voxels at full resolution, {ceiling:,} in {table.lowres_factor} patches"
    )
    if planned.low is None:
        reason = "; a coarser spacing would not halve the voxels" if voxels > ceiling else ""
        return Decision("3d_lowres", "not planned", rule, numbers + reason)
    fewer = case_voxels(full, planned.low.spacing_mm, median, table)
    return Decision(
        "3d_lowres",
        f"planned at {_mm(planned.low.spacing_mm)}, with a second stage at full resolution",
        rule,
        f"{numbers}; {fewer:,.0f} at the coarser spacing",
    )


def _spacing(fingerprint: Fingerprint, table: RuleSet) -> Decision:
    found = spacing_choice(fingerprint, table)
    axis, ratio = found.coarsest, found.median_mm[found.coarsest] / found.in_plane_mm
    numbers = (
        f"medians {_mm(found.median_mm)} along z, y, x of {fingerprint.n_cases} cases, median "
        f"shape {_times(found.median_shape)}; {AXES[axis]} is {ratio:.3g} times the in-plane "
        f"{found.in_plane_mm:g} mm"
    )
    if found.is_anisotropic:
        numbers += f"; its {table.low_percentile:g}th percentile is {found.low_mm:g} mm"
        if found.low_mm < found.in_plane_mm:
            numbers += ", below the in-plane spacing, which therefore counts"
    return Decision(
        "target spacing",
        _mm(found.target_mm),
        f"the median of all cases, axis by axis; the {table.low_percentile:g}th percentile along "
        f"an axis more than {table.anisotropy:g} times coarser and shorter than the others "
        '(nnU-Net, methods "target spacing")',
        numbers,
    )


def _normalization(plan: Plan, fingerprint: Fingerprint | None) -> Iterable[Decision]:
    for rule in plan.normalization:
        if rule.scheme == "ct":
            numbers = (
                f"{fingerprint.ct[rule.channel].n_voxels:,} sampled voxels"
                if fingerprint is not None
                else "a summary knows no intensities: no image can be prepared with this plan"
            )
            chosen = "CT: absolute HU"
            if rule.clip_low is not None and rule.mean is not None and rule.std is not None:
                chosen = (
                    f"CT: clip to [{rule.clip_low:g}, {rule.clip_high:g}] HU, subtract "
                    f"{rule.mean:.6g}, divide by {rule.std:.6g}"
                )
            text = "0.5 and 99.5 percentile, mean and deviation of the federation's foreground"
        else:
            numbers = "a summary does not know what the crop removed"
            if fingerprint is not None:
                numbers = (
                    f"{fingerprint.n_cropped} of {fingerprint.n_cases} cases keep less than 3/4 "
                    "of their voxels after the empty border is cut off"
                )
            chosen = f"{rule.scheme} of every image"
            text = "of the voxels that are not empty if most cases lose a quarter or more"
        yield Decision(
            f"normalisation of {rule.channel}",
            chosen,
            f'{text} (nnU-Net, methods "intensity normalization")',
            numbers,
        )


def _preparation(plan: Plan) -> Iterable[Decision]:
    asked = plan.preparation
    wanted = {
        "N4 bias correction": asked.n4_bias_correction,
        "anisotropic diffusion": asked.diffusion is not None,
        "clipped percentiles": asked.clip_percentiles is not None,
        "histogram landmarks": asked.histogram_landmarks is not None,
    }
    if chosen := [name for name, is_on in wanted.items() if is_on]:
        yield Decision(
            "preparation",
            ", ".join(chosen),
            "none in nnU-Net",
            "the run's configuration asks for it",
        )


def _patch(stage: Stage, plan: Plan, table: RuleSet) -> Decision:
    fit = stage.fit
    budget = budget_of(table, len(stage.spacing_mm))
    start = {
        "median": "from the median shape",
        "coarsest-axis": f"from a cube in mm, {budget.start_edge_voxels} voxels along the coarsest "
        "axis, cut at the median shape",
        "volume": f"from a cube in mm of {budget.start_edge_voxels}^{len(stage.spacing_mm)} "
        "voxels, cut at the median shape",
    }[budget.start]
    path = [_times(patch) for patch in fit.tried]
    shown = path if len(path) <= 6 else [*path[:3], f"({len(path) - 5} more)", *path[-2:]]
    steps = " > ".join(shown) if len(path) > 1 else f"{path[0]} fits at once"
    return Decision(
        "patch",
        f"{_times(fit.network.patch_size)} voxels of {_mm(stage.spacing_mm)}",
        f"{start}; the axis that covers most of the median case shrinks until a batch of "
        f'{budget.fitted_batch_size} fits into memory (nnU-Net, methods "patch size")',
        f"median shape {_times(stage.median_shape)}; {steps}; a batch of "
        f"{budget.fitted_batch_size} takes {100 * fit.occupied:.2g} % of "
        f"{plan.planned_for.memory_gb:g} GB",
    )


def _strides(stage: Stage, table: RuleSet) -> Decision:
    network = stage.fit.network
    halvings = [
        sum(step[axis] == 2 for step in network.strides) for axis in range(len(network.patch_size))
    ]
    ends = [
        voxels // unit for voxels, unit in zip(network.patch_size, network.divisor, strict=True)
    ]
    coarse = [mm * unit for mm, unit in zip(stage.spacing_mm, network.divisor, strict=True)]
    return Decision(
        "stages",
        f"{len(network.kernel_sizes)}, axes halved {_listed(halvings)} times",
        f"axes whose spacings are within a factor of {SIMILAR} are halved together while "
        f"{MIN_EDGE_VOXELS} voxels are left; kernels are 1 wide along a much coarser axis; "
        f'features double from {table.base_features} (nnU-Net, methods "network topology")',
        f"the last stage has {_times(ends)} voxels of {_mm(coarse)}",
    )


def _batch(stage: Stage, plan: Plan, table: RuleSet) -> Decision:
    batch = stage.fit.batch
    share = f"{100 * table.max_share_of_voxels:g} %"
    return Decision(
        "batch",
        str(batch.size),
        f"what fits into memory, but no more than {share} of the data set's voxels, and at least "
        f'{batch.smallest} (nnU-Net, methods "batch size")',
        f"{batch.fitting} fit; {share} of {plan.planned_for.n_training_cases} median cases are "
        f"{batch.covering} patches",
    )


def _flatness(configuration: Configuration, table: RuleSet) -> Decision:
    ratio = max(configuration.patch_size) / configuration.patch_size[0]
    return Decision(
        "augmentation",
        "within slices only" if configuration.anisotropic_augmentation else "along all axes",
        f"within slices when the longest edge is more than {table.anisotropy:g} times the first "
        "(paper's code)",
        f"the longest edge is {ratio:.3g} times the first",
    )


def _mm(spacing_mm: Sequence[float]) -> str:
    return f"{' x '.join(f'{mm:.5g}' for mm in spacing_mm)} mm"


def _times(sizes: Iterable[float]) -> str:
    return times(f"{voxels:g}" for voxels in sizes)


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))
