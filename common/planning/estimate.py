"""How much accelerator memory a configuration takes, by the planner's own estimate.

Source: the memory proxy of `common.planning.topology.voxel_channels`, scaled so that the published
reference network and batch take the published reference memory.
"""

from math import prod

from common.planning.patch import budget_of
from common.planning.plan import AnyConfiguration, Plan
from common.planning.rules import rule_set
from common.planning.topology import Topology, voxel_channels_per_stage


def memory_per_stage_gb(plan: Plan, configuration: AnyConfiguration) -> tuple[float, ...]:
    """Return the estimated memory of a training step, finest stage first, in GB.

    Args:
        plan: gives rules, channels and classes.
        configuration: with the features and the batch that are really trained; its strides,
            kernels and features must fit together.
    """
    table = rule_set(plan.rules)
    budget = budget_of(table, len(configuration.patch_size))
    n_inputs = len(plan.channels) if table.counts_input else 0
    parts = voxel_channels_per_stage(
        network_of(configuration),
        configuration.features_per_stage,
        plan.planned_for.n_foreground_classes + 1 + n_inputs,
        table.feature_maps,
    )
    batches = configuration.batch_size / budget.reference_batch_size
    # The reference counts fewer features than are trained, where the published planner does.
    trained = budget.reference_voxel_channels * table.base_features / budget.counted_features
    per_gb = trained / table.reference_memory_gb
    return tuple(part * batches / per_gb for part in parts)


def network_of(configuration: AnyConfiguration) -> Topology:
    """Return a configuration's network as the planner describes it."""
    n_axes = len(configuration.patch_size)
    return Topology(
        patch_size=configuration.patch_size,
        strides=configuration.strides,
        kernel_sizes=configuration.kernel_sizes,
        divisor=tuple(prod(step[axis] for step in configuration.strides) for axis in range(n_axes)),
    )


def stage_sizes(configuration: AnyConfiguration) -> tuple[tuple[int, ...], ...]:
    """Return the voxels along each axis at every stage, finest first."""
    sizes: list[tuple[int, ...]] = [configuration.patch_size]
    for stride in configuration.strides:
        pairs = zip(sizes[-1], stride, strict=True)
        sizes.append(tuple(voxels // step for voxels, step in pairs))
    return tuple(sizes)
