"""A plan that a person changed: read, checked, and marked, so that nobody takes it for the rules'.

`plan.json` may be edited by hand. Its hash then no longer fits, which is how an edit is known; what
is read is sealed again, with `edited` set, and no later change can remove the mark.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import isclose, prod
from pathlib import Path

from common.axes import times
from common.codec import content_hash, read_json
from common.errors import ConfigError
from common.planning.estimate import memory_per_stage_gb, network_of, stage_sizes
from common.planning.plan import AnyConfiguration, Plan, sealed

TOLERATED_MEMORY = 1.25  # "v2" rounds its batch, so its own plans may take 2.5 patches as 3


def read_plan(path: Path) -> Plan:
    """Read a `plan.json` as the planner wrote it, or as a person changed it since.

    Returns:
        The plan; sealed again and marked as edited if its hash does not fit its content.

    Raises:
        ConfigError: when the file is no plan, or with every reason why it cannot be trained.
    """
    plan = read_json(Plan, path)
    if content_hash(replace(plan, hash="")) != plan.hash:
        plan = sealed(replace(plan, edited=True))
    if found := defects(plan):
        raise ConfigError("\n".join(f"{path}: {defect}" for defect in found))
    return plan


def defects(plan: Plan) -> tuple[str, ...]:
    """Return why a plan cannot be prepared or trained; nothing for what the planner writes."""
    found = []
    if sorted(plan.transpose) != [0, 1, 2]:
        found.append(f"transpose: expected 0, 1 and 2 in some order, found {plan.transpose}")
    normalized = tuple(rule.channel for rule in plan.normalization)
    if normalized != plan.channels:
        found.append(
            f"normalization: expected the channels {', '.join(plan.channels)}, "
            f"found {', '.join(normalized) or 'none'}"
        )
    if not plan.configurations:
        found.append("configurations: expected at least one, found none")
    for name, configuration in plan.configurations.items():
        found += [f"configurations.{name}.{line}" for line in _misfits(configuration)]
    return tuple(found)


def advice(plan: Plan) -> tuple[str, ...]:
    """Return what can be trained but is unlikely to be wanted, in words; no plan is refused."""
    lines = []
    for name, configuration in plan.configurations.items():
        prefix = f"configurations.{name}"
        if configuration.batch_size < 2:
            lines.append(
                f"{prefix}.batch_size: 1 makes gradients noisy; nnU-Net never plans below 2 in 3D, "
                "and batch norm needs more"
            )
        needed, given = sum(memory_per_stage_gb(plan, configuration)), plan.planned_for.memory_gb
        if needed > given * TOLERATED_MEMORY:
            lines.append(
                f"{prefix}: training takes about {needed:.1f} GB, more than the {given:g} GB of "
                "planned_for.memory_gb"
            )
    return tuple(lines)


def _misfits(configuration: AnyConfiguration) -> Iterator[str]:
    n_strides = len(configuration.strides)
    lengths = {
        "kernel_sizes": (len(configuration.kernel_sizes), n_strides + 1, "one more than strides"),
        "features_per_stage": (
            len(configuration.features_per_stage),
            n_strides + 1,
            "one more than strides",
        ),
        "deep_supervision_weights": (
            len(configuration.deep_supervision_weights),
            max(1, n_strides),
            "one per decoder stage",
        ),
    }
    wrong = {name: line for name, line in lengths.items() if line[0] != line[1]}
    for name, (found, expected, why) in wrong.items():
        yield f"{name}: expected {expected} entries ({why}), found {found}"
    for kernel in configuration.kernel_sizes:
        if any(width % 2 == 0 for width in kernel):
            yield f"kernel_sizes: expected odd widths, found {times(kernel)}"
    divisor = network_of(configuration).divisor
    if any(n % unit for n, unit in zip(configuration.patch_size, divisor, strict=True)):
        yield (
            f"patch_size: expected multiples of {times(divisor)}, the product of the strides, "
            f"found {times(configuration.patch_size)}"
        )
    elif prod(stage_sizes(configuration)[-1]) == 1 and n_strides:
        yield (
            "strides: expected more than one voxel in the last stage, which no norm layer can "
            f"scale, found {times(stage_sizes(configuration)[-1])}"
        )
    if not isclose(sum(configuration.deep_supervision_weights), 1, abs_tol=1e-6):
        yield (
            "deep_supervision_weights: expected a sum of 1, "
            f"found {sum(configuration.deep_supervision_weights):g}"
        )
