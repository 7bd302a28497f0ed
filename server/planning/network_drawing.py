"""A planned network as text: its stages as a U, with sizes, kernels and memory per stage."""

from common.axes import times
from common.planning.estimate import memory_per_stage_gb, stage_sizes
from common.planning.plan import AnyConfiguration, ConfigurationName, Plan

INDENT = 3  # columns that a stage lies deeper than the one above it
U_COLUMNS = 62  # width of the U; the numbers stand to its right
BAR_COLUMNS = 20


def drawing(plan: Plan, name: ConfigurationName) -> str:
    """Return the U of one configuration, its encoder on the left and its decoder on the right.

    Args:
        plan: whose configurations fit together (`common.planning.edited_plan.defects`).
        name: one that the plan has.

    Returns:
        Plain ASCII lines, without a newline at the end.
    """
    configuration = plan.configurations[name]
    memory_gb = memory_per_stage_gb(plan, configuration)
    lines = [_with_numbers(_ends(plan), "kernel", "memory", "")]
    for stage, size in enumerate(stage_sizes(configuration)):
        if stage > 0:
            lines.append(_step(configuration, stage))
        kernel = times(configuration.kernel_sizes[stage])
        bar = "#" * round(BAR_COLUMNS * memory_gb[stage] / sum(memory_gb))
        u = _stage(configuration, stage, size)
        lines.append(_with_numbers(u, kernel, f"{memory_gb[stage]:.2f} GB", bar))
    given = plan.planned_for.memory_gb
    lines.append(
        f"about {sum(memory_gb):.2f} of {given:g} GB for a batch of {configuration.batch_size}, "
        "by the planner's estimate"
    )
    return "\n".join(line.rstrip() for line in lines)


def _ends(plan: Plan) -> str:
    n_inputs, n_classes = len(plan.channels), plan.planned_for.n_foreground_classes
    left = "1 channel in" if n_inputs == 1 else f"{n_inputs} channels in"
    right = f"{n_classes} + background out"
    return left + right.rjust(U_COLUMNS - len(left))


def _stage(configuration: AnyConfiguration, stage: int, size: tuple[int, ...]) -> str:
    """Return one level of the U: what goes down, the skip connection, and what comes up."""
    features = configuration.features_per_stage[stage]
    left = " " * (INDENT * stage) + f"[{features}] {times(size)} "
    if stage == len(configuration.strides):
        return left + ("bottleneck" if stage else "a single stage")
    right = f" [{features}]" + " " * (INDENT * stage)
    return left + "-" * (U_COLUMNS - len(left) - len(right) - 1) + ">" + right


def _step(configuration: AnyConfiguration, stage: int) -> str:
    """Return the line between two levels: the stride down on the left, up on the right."""
    stride = times(configuration.strides[stage - 1])
    left = " " * (INDENT * stage - 1) + f"\\ {stride}"
    right = f"{stride} /" + " " * (INDENT * stage - 1)
    return left + right.rjust(U_COLUMNS - len(left))


def _with_numbers(u: str, kernel: str, memory: str, bar: str) -> str:
    return f"{u:<{U_COLUMNS}}  {kernel:<7}{memory:>10}  {bar}"
