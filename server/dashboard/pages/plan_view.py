"""The plan that all sites share: spacing, patch, network, and the network drawn."""

from collections.abc import Iterator

from nicegui import html

from common.axes import times
from common.planning.edited_plan import advice, defects
from common.planning.plan import AnyConfiguration, Plan
from server.dashboard.pages.frame import empty_state, section
from server.dashboard.pages.grid import Column, make_grid
from server.dashboard.pages.live import Refresh
from server.dashboard.views import RunDetail
from server.planning.network_drawing import drawing

COLUMNS = (
    Column("what", "Decision", "What was planned", width=290),
    Column("value", "Value", "With its unit", width=260, wide=True),
)
NOTHING = (
    "No plan yet: it is made when all sites have described their data, and agreed on by every site."
)


def plan_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    box = html.div()
    shown: list[object] = []

    def show(found: RunDetail) -> None:
        if shown == [found.files.plan, found.plan_made]:
            return
        shown[:] = [found.files.plan, found.plan_made]
        box.clear()
        with box:
            if found.files.plan is None:
                empty_state(NOTHING)
            else:
                _build(found.files.plan, found.files.config.get("model.configuration", ""))

    show(detail)
    return show


def _build(plan: Plan, trained: str) -> None:
    with section("Plan", f"Made by the rules {plan.rules!r}{', edited by hand' * plan.edited}."):
        make_grid("The plan", COLUMNS, _rows(_facts(plan)))
        for line in (*plan.limits, *advice(plan)):
            html.p(line)
    wrong = defects(plan)
    for name, configuration in plan.configurations.items():
        said = "The run trains this one." if name == trained else ""
        with section(f"Network {name}", said):
            make_grid(f"Network {name}", COLUMNS, _rows(_network(configuration)))
            if not wrong:
                told = f"The stages of the network {name} as a U, drawn with letters"
                with html.div(**{"aria-label": told, "role": "img", "tabindex": "0"}):
                    html.pre(drawing(plan, name)).classes("drawing")
    for defect in wrong:
        html.p(str(defect)).classes("banner")


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    basis = plan.planned_for
    yield "Hash", plan.hash
    yield "Training cases of the federation", str(basis.n_training_cases)
    yield "Channels", ", ".join(plan.channels)
    yield "Classes besides background", str(basis.n_foreground_classes)
    yield "Memory of the smallest accelerator", f"{basis.memory_gb:g} GB"
    yield "Axes", f"image axes {plan.transpose} of (z, y, x), the largest spacing first"
    for one in plan.normalization:
        clip = f", clipped to {one.clip_low:g} to {one.clip_high:g} HU" if one.clip_low else ""
        yield f"Normalisation of {one.channel}", one.scheme + clip


def _network(one: AnyConfiguration) -> Iterator[tuple[str, str]]:
    yield "Spacing", f"{times(one.spacing_mm)} mm"
    yield "Median shape", f"{times(one.median_shape)} voxels"
    yield "Patch", f"{times(one.patch_size)} voxels"
    yield "Batch", f"{one.batch_size} patches"
    yield "Features per stage", ", ".join(map(str, one.features_per_stage))
    yield "Strides", ", ".join(map(times, one.strides)) or "none"
    yield "Kernels", ", ".join(map(times, one.kernel_sizes))
    yield "Dice loss", "over the batch" if one.batch_dice else "case by case"


def _rows(facts: Iterator[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"id": what, "what": what, "value": value} for what, value in facts]
