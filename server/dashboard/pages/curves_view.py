"""Learning curves of a run, and the fields in which a reader chooses what they show."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from nicegui import html, ui

from server.dashboard.pages.chart import make_chart
from server.dashboard.pages.curves import (
    EVERY_METHOD,
    EVERY_REGION,
    FEW_SITES,
    Choice,
    dice_drawing,
    first_choice,
    loss_drawing,
)
from server.dashboard.pages.frame import section
from server.dashboard.pages.live import Refresh
from server.dashboard.views import RunDetail
from server.reporting.report_data import method_label

DRAWINGS = (dice_drawing, loss_drawing)


@dataclass(frozen=True)
class Shown:
    """What the charts show."""

    detail: RunDetail
    choice: Choice


def curves_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    shown = Shown(detail, first_choice(detail.rounds))
    with section("Learning curves", "Every value is of the weights after the round."):
        tools = html.div().classes("tools")
        with html.div().classes("pair"):
            charts = [make_chart(draw(detail.rounds, shown.choice)) for draw in DRAWINGS]

    def show(found: Shown) -> None:
        nonlocal shown
        shown = found
        for chart, draw in zip(charts, DRAWINGS, strict=True):
            chart.show(draw(shown.detail.rounds, shown.choice))

    def refresh(found: RunDetail) -> None:
        choice = shown.choice
        if _menus(found) != _menus(shown.detail):
            if choice.method not in found.rounds or not _menus(shown.detail):
                choice = first_choice(found.rounds)
            _fill(tools, found, choice, choose)
        show(Shown(found, choice))

    def choose(change: Callable[[Choice], Choice]) -> None:
        show(replace(shown, choice=change(shown.choice)))

    _fill(tools, detail, shown.choice, choose)
    return refresh


def _menus(detail: RunDetail) -> tuple[object, ...]:
    return tuple((name, found.regions, found.sites) for name, found in detail.rounds.items())


def _fill(
    tools: html.div,
    detail: RunDetail,
    choice: Choice,
    choose: Callable[[Callable[[Choice], Choice]], None],
) -> None:
    regions = list(dict.fromkeys(name for one in detail.rounds.values() for name in one.regions))
    sites = list(dict.fromkeys(name for one in detail.rounds.values() for name in one.sites))
    methods = {name: method_label(name) for name in detail.rounds}
    tools.clear()
    if not detail.rounds:
        return
    with tools:
        ui.select(
            {**methods, EVERY_METHOD: "Every method (means over sites)"},
            label="Method",
            value=choice.method,
            on_change=lambda event: choose(lambda now: replace(now, method=event.value)),
        ).props("outlined dense")
        ui.select(
            [EVERY_REGION, *regions],
            label="Region",
            value=choice.region if choice.region in regions else EVERY_REGION,
            on_change=lambda event: choose(lambda now: replace(now, region=event.value)),
        ).props("outlined dense")
        ui.select(
            sites,
            label=f"Sites, beside the mean of all {len(sites)}",
            multiple=True,
            with_input=len(sites) > FEW_SITES,
            value=[site for site in choice.sites if site in sites],
            on_change=lambda event: choose(lambda now: replace(now, sites=tuple(event.value))),
        ).props("outlined dense use-chips").classes("many")
