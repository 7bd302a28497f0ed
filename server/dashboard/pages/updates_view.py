"""What sites sent: how long their updates were, and which of them did not count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from nicegui import html, ui

from server.dashboard.method_rounds import MethodRounds, Values
from server.dashboard.pages.chart import Drawing, line_series, make_chart, options
from server.dashboard.pages.curves import (
    FEW_SITES,
    Line,
    band_of,
    points_of,
    site_lines,
    table_of,
)
from server.dashboard.pages.frame import section
from server.dashboard.pages.grid import Column, Row, make_grid
from server.dashboard.pages.live import Refresh
from server.dashboard.pages.words import count_text, time_text
from server.dashboard.views import Fault, RunDetail
from server.reporting.report_data import method_label

FAULT_COLUMNS = (
    Column("time", "Time (UTC)", "When it was noticed", time_text, width=165, sort="desc"),
    Column("method", "Method", "Whose round it was", width=110),
    Column("round", "Round", "Number of the round", count_text, width=80),
    Column("site", "Site", "Whose answer it was", width=140),
    Column("code", "Code", "What kind of failure; ignored: good, but too late; excluded: the site "
           "is no longer asked", width=170),
    Column("reason", "Reason", "As the coordinator or the site says", width=260, wide=True),
)  # fmt: skip
NO_FAULTS = "None: every answer so far has counted."
MEDIAN = "median over sites"


@dataclass(frozen=True)
class Shown:
    """What the chart shows."""

    detail: RunDetail
    method: str
    sites: tuple[str, ...] = ()


def updates_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    state = Shown(detail, _method(detail))
    with section(
        "Update norms",
        "Length (L2 norm) of the change that a site sends; one far from the others is odd.",
    ):
        tools = html.div().classes("tools")
        chart = make_chart(_drawing(state))
    with section("Answers that did not count", "Errors, refused updates, late or excluded sites."):
        counted = ui.label(_count(detail)).classes("says")
        grid = make_grid("Answers that did not count", FAULT_COLUMNS, fault_rows(detail.faults),
                         empty=NO_FAULTS)  # fmt: skip

    def choose(found: Shown) -> None:
        nonlocal state
        state = found
        chart.show(_drawing(state))

    def refresh(found: RunDetail) -> None:
        nonlocal state
        grown = _menu(found) != _menu(state.detail)
        state = replace(state, detail=found, method=state.method or _method(found))
        if grown:
            _fill(tools, lambda: state, choose)
        chart.show(_drawing(state))
        counted.text = _count(found)
        grid.show(fault_rows(found.faults))

    _fill(tools, lambda: state, choose)
    return refresh


def fault_rows(faults: Sequence[Fault]) -> list[Row]:
    """Return the lines of the table, the newest first."""
    return [
        {
            "id": f"{fault.time.isoformat()} {fault.site} {fault.code}",
            "time": fault.time,
            "method": method_label(fault.method),
            "round": fault.round,
            "site": fault.site,
            "code": fault.code,
            "reason": fault.reason,
        }
        for fault in reversed(faults)
    ]


def norms_drawing(found: MethodRounds | None, sites: Sequence[str]) -> Drawing:
    """Draw norms by round: median and band over sites, chosen sites, and those of sums."""
    lines: list[Line] = []
    if found is not None:
        lines = [
            Line(MEDIAN, _median(found.update_norm)),
            Line("norm of the mean change (only the sum is seen)", found.sum_norm),
            *site_lines(found, found.update_norm, sites),
        ]
    drawn = [line for line in lines if np.isfinite(line.values).any()]
    series = band_of(found.update_norm) if found is not None else []
    series += [
        line_series(line.name, points_of(line.values), place, thick=line.name == MEDIAN)
        for place, line in enumerate(drawn)
    ]
    columns, rows = table_of(drawn)
    return Drawing(
        options(x="Round", y="L2 norm of the update (no unit)", series=series),
        f"Lines of the updates' norms by round: {', '.join(line.name for line in drawn)}.",
        columns,
        rows,
        "" if drawn else "No update yet: no site has sent one that was accepted.",
    )


def _median(values: Values) -> Values:
    some = np.isfinite(values).any(axis=1)
    medians = np.full(len(values), np.nan)
    medians[some] = np.nanmedian(values[some], axis=1)
    return medians


def _drawing(state: Shown) -> Drawing:
    return norms_drawing(state.detail.rounds.get(state.method), state.sites)


def _method(detail: RunDetail) -> str:
    return detail.summary.method or next(iter(detail.rounds), "")


def _menu(detail: RunDetail) -> tuple[object, ...]:
    return tuple((name, found.sites) for name, found in detail.rounds.items())


def _count(detail: RunDetail) -> str:
    shown = len(detail.faults)
    newest = f"; the newest {shown} are shown" if detail.n_faults > shown else ""
    answers = "1 answer" if detail.n_faults == 1 else f"{count_text(detail.n_faults)} answers"
    return f"{answers} did not count{newest}."


def _fill(tools: html.div, state: Callable[[], Shown], choose: Callable[[Shown], None]) -> None:
    tools.clear()
    rounds = state().detail.rounds
    if not rounds:
        return
    sites = list(dict.fromkeys(site for found in rounds.values() for site in found.sites))
    with tools:
        ui.select(
            {name: method_label(name) for name in rounds},
            label="Method",
            value=state().method,
            on_change=lambda event: choose(replace(state(), method=event.value)),
        ).props("outlined dense")
        ui.select(
            sites,
            label="Sites, beside the median",
            multiple=True,
            with_input=len(sites) > FEW_SITES,
            value=list(state().sites),
            on_change=lambda event: choose(replace(state(), sites=tuple(event.value))),
        ).props("outlined dense use-chips").classes("many")
