"""Who learned what together, and how the plan came about."""

from common.config import RunConfig, Simulation
from common.planning.plan import Plan
from common.planning.rules import rule_set
from common.task import Task
from server.events import SiteJoined
from server.reporting.methods.told import (
    listed,
    of_config,
    of_configuration,
    of_plan,
    of_program,
    percent,
    plural,
)
from server.reporting.references import cite
from server.reporting.report_data import ReportData
from server.reporting.sources import sourced, where

TASK_PAPERS = {
    "hippocampus": "simpson2019",
    "brats-2013": "menze2015",
    "brats-2021": "baid2021",
    "kits-2019": "heller2019",
}
RULES = {
    "paper": "as published",
    "v2": "as revised by its authors in nnunetv2",
    "v2-resenc-m": "for residual encoders, preset M",
    "v2-resenc-l": "for residual encoders, preset L",
    "v2-resenc-xl": "for residual encoders, preset XL",
}


def design(data: ReportData, config: RunConfig) -> list[str]:
    """Return who took part, with which data."""
    training = [site for site in data.sites if site.role == "training"]
    held_out = [site for site in data.sites if site.role != "training"]
    found = [
        (
            f"{_count(training, 'training')} trained segmentation models together by federated "
            f"learning, with Flower {cite('beutel2020')} as transport; images and labels stayed at "
            "the sites."
        )
    ]
    if held_out:
        found.append(
            f"{_count(held_out, 'held-out')}, which took no part in planning or training, "
            "tested the final models."
        )
    if config.simulation:
        found.append(_simulated(config, config.simulation))
    for sites, role in ((training, "training"), (held_out, "held-out")):
        found += _cases(sites, role)
    return [*found, *(_task(data.task) if data.task else ())]


def planning(data: ReportData, plan: Plan) -> list[str]:
    """Return how the plan came about, with its numbers."""
    table, papers = rule_set(plan.rules), ["isensee2021"]
    if plan.rules.startswith("v2"):
        papers = ["isensee2021", "isensee2024"]
    rules = f"common.planning.rules, {plan.rules}"
    found = [
        (
            "Each training site described its data by counts of shapes, spacings and extents that "
            "add up over sites; from their sum the rules of nnU-Net, "
            f"{RULES[plan.rules]} {cite(*papers)}, made one plan for "
            f"{of_plan(plan, 'planned_for.memory_gb')} GB of accelerator memory and "
            f"{of_plan(plan, 'planned_for.n_training_cases')} cases{_agreed(plan)}."
        ),
        (
            "The target spacing is the median over the cases along each axis, or, along an axis "
            f"more than {of_program(table.anisotropy, rules)} times coarser and shorter than the "
            f"others, the {of_program(table.low_percentile, rules)}th percentile."
        ),
        (
            f"The patch shrinks from {_start(plan, data)} until a batch of "
            f"{of_program(table.three_axes.fitted_batch_size, rules)} fits into memory; the batch "
            "is then as large as memory allows, within "
            f"{of_program(percent(table.max_share_of_voxels), rules)} of the voxels of all cases."
        ),
    ]
    for name, one in data.configurations.items():
        axes = "z, y, x" if len(one.patch_size) == 3 else "y, x"
        found.append(
            f"The configuration {name} has a spacing of "
            f"{of_configuration(name, one, 'spacing_mm')} mm ({axes}), at which the median case "
            f"has {of_configuration(name, one, 'median_shape')} voxels, a patch of "
            f"{of_configuration(name, one, 'patch_size')} voxels and a batch of "
            f"{of_configuration(name, one, 'batch_size')}."
        )
    if plan.limits:
        limits = sourced("; ".join(plan.limits), "plan.json: limits")
        found.append(f"The configuration cut the plan below the rules: {limits}.")
    if plan.edited:
        found.append("A person edited the plan afterwards; the sites' policies accepted that.")
    return found


def _start(plan: Plan, data: ReportData) -> str:
    budgets = rule_set(plan.rules)
    flat = all(len(one.patch_size) == 2 for one in data.configurations.values())
    budget = budgets.two_axes if flat else budgets.three_axes
    if budget.start == "median":
        return "the median shape"
    edge = of_program(budget.start_edge_voxels, f"common.planning.rules, {plan.rules}")
    where_it_holds = {
        "coarsest-axis": f"{edge} voxels along the coarsest axis",
        "volume": f"as many voxels as {edge} along each axis",
    }[budget.start]
    return f"a cube in mm with {where_it_holds}, cut at the median shape,"


def _agreed(plan: Plan) -> str:
    """Return how the sites came to the plan that the rules gave."""
    return "" if plan.edited else "; every site derived it again and compared its hash"


def _count(sites: list[SiteJoined], role: str) -> str:
    n = len(sites)
    source = where("events.jsonl: count of SiteJoined.site", role=role)
    further = " further" if role != "training" else ""
    return f"{sourced(n, source)}{further} {plural(n, 'site')}"


def _simulated(config: RunConfig, simulation: Simulation) -> str:
    how = "by given sizes"
    if simulation.csv is not None:
        how = "by a file that names each case's site"
    elif simulation.dirichlet is not None:
        alpha = of_config(config, "simulation.dirichlet.alpha")
        how = f"by a draw from a symmetric Dirichlet distribution of concentration {alpha}"
    elif simulation.folds is not None:
        how = f"into {of_config(config, 'simulation.folds.n')} folds, one of them held out"
    clock = ""
    if simulation.times is not None:
        clock = f" Rounds took simulated time, by times of real institutions {cite('pati2021')}."
    return (
        "The federation was simulated: one data set on one machine was divided among the sites "
        f"{how}, and every site ran the program that a hospital runs.{clock}"
    )


def _cases(sites: list[SiteJoined], role: str) -> list[str]:
    told = [site.n_cases for site in sites if site.n_cases is not None]
    if not told:
        return []
    key = "SiteJoined.n_cases"
    total, least, most = (
        sourced(how(told), where(f"events.jsonl: {name} of {key}", role=role))
        for name, how in (("sum", sum), ("min", min), ("max", max))
    )
    spread = f", {least} to {most} per site" if len(told) > 1 else ""
    silent = " among those that tell" if len(told) < len(sites) else ""
    kind = "Training" if role == "training" else "Held-out"
    return [f"{kind} sites held {total} cases{spread}{silent}."]


def _task(task: Task) -> list[str]:
    names = {value: name for name, value in task.labels.items()}
    regions = [
        region if members == [region] else f"{region} ({', '.join(members)})"
        for region, labels in task.regions.items()
        for members in ([names[label] for label in labels],)
    ]
    paper = TASK_PAPERS.get(task.name)
    n_channels = len(task.channels)
    return [
        (
            f"A case of the task {task.name}{' ' + cite(paper) if paper else ''} has "
            f"{sourced(n_channels, 'task.toml: count of channels')} image "
            f"{plural(n_channels, 'channel')} ({', '.join(task.channels)}) and a map of "
            f"{sourced(len(task.labels), 'task.toml: count of labels')} labels including "
            f"background; the scored regions are {listed(regions)}."
        )
    ]
