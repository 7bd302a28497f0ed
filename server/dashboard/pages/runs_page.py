"""All runs: one table, and two of its runs to be compared."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from nicegui import html, ui

from server.dashboard.pages.alarm_list import alarm_list
from server.dashboard.pages.frame import framed, run_address, section
from server.dashboard.pages.grid import Column, Grid, Row, make_grid
from server.dashboard.pages.live import Reading, keep_fresh
from server.dashboard.pages.words import (
    count_text,
    number_text,
    seconds_text,
    share_text,
    size_text,
    time_text,
)
from server.dashboard.views import Alarm, RunSummary
from server.reporting.report_data import method_label

COLUMNS = (
    Column("name", "Run", "Name of its folder; opens its page", width=180, link=True, stays=True),
    Column("state", "State", "waiting, running, finished, failed, stalled or unreadable",
           width=105),
    Column("alarms", "Alarms", "Alarms that hold now", count_text, width=80),
    Column("progress", "Done", "Rounds done of all methods' rounds", share_text, width=75),
    Column("method", "Method", "The method at hand, or the last one", width=110),
    Column("round", "Round", "Last finished round of the method, and how many are planned"),
    Column("sites", "Sites", "Training sites that take part now", count_text, width=75),
    Column("best", "Best Dice", "Validation Dice, mean over regions and sites (no unit)",
           number_text(3), width=95),
    Column("best_at", "Best at", "Method and round of the best Dice", width=150),
    Column("epsilon", "Epsilon", "Spent for patients: largest over sites (no unit); a dash without "
           "differential privacy", number_text(2), width=95),
    Column("budget", "Budget used", "Largest share over sites of the site's own privacy budget",
           share_text, width=95),
    Column("up", "From sites", "Size of all updates that were accepted", size_text, width=105),
    Column("down", "To sites", "Size of all that was sent, repetitions included", size_text,
           width=105),
    Column("seconds", "Duration", "From the first event to the last", seconds_text, width=110),
    Column("last", "Last event (UTC)", "When something happened last", time_text, width=165),
    Column("task", "Task", "What is segmented", width=140),
)  # fmt: skip
NO_RUNS = (
    "There is no run in this folder yet. A run appears here as soon as its folder holds a "
    "config.toml or an events.jsonl."
)


async def runs_page(reading: Reading) -> None:
    """Build the page of all runs."""
    summaries, alarms = await _read(reading)
    with framed("Runs"):
        told = ui.label(_count(summaries)).classes("says").props('role="status"')
        with section("Alarms"):
            show_alarms = alarm_list(alarms, with_run=True)
        with section("All runs", "Sort by a heading; Enter on a run's name opens it."):
            with html.div().classes("tools"):
                search = ui.input("Filter").props('clearable type="search" dense outlined')
                compare = ui.button("Compare the two chosen runs").props("no-caps outline")
            grid = make_grid(
                "All runs", COLUMNS, [row_of(run) for run in summaries], chosen=True, empty=NO_RUNS
            )
        search.on_value_change(lambda event: grid.filter(event.value or ""))
        _offer_comparison(compare, grid)

    async def refresh() -> None:
        found, raised = await _read(reading)
        told.text = _count(found)
        grid.show([row_of(run) for run in found])
        show_alarms(raised)

    keep_fresh(reading, refresh)


def row_of(run: RunSummary) -> Row:
    """Return a run's line in the table."""
    best = run.best
    return {
        "id": run.name,
        "href": run_address(run.name),
        "name": run.name,
        "state": run.state,
        "alarms": run.n_alarms,
        "progress": run.progress.fraction if run.progress.n_rounds else None,
        "method": method_label(run.method) if run.method else "",
        "round": _rounds(run),
        "sites": run.n_sites,
        "best": best.dice if best else None,
        "best_at": f"{method_label(best.method)}, round {best.round}" if best else "",
        "epsilon": run.epsilon,
        "budget": run.budget_used,
        "up": run.upload_bytes,
        "down": run.download_bytes,
        "seconds": run.seconds,
        "last": run.last_event,
        "task": run.task,
    }


async def _read(reading: Reading) -> tuple[Sequence[RunSummary], Sequence[Alarm]]:
    summaries = await reading.ask(reading.store.summaries)
    return summaries, await reading.ask(reading.store.alarms)


def _rounds(run: RunSummary) -> str:
    if not run.method:
        return ""
    return f"{run.round} of {run.n_rounds}" if run.n_rounds else str(run.round)


def _count(summaries: Sequence[RunSummary]) -> str:
    states: dict[str, int] = {}
    for run in summaries:
        states[run.state] = states.get(run.state, 0) + 1
    told = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    runs = "1 run" if len(summaries) == 1 else f"{len(summaries)} runs"
    return f"{runs}: {told}" if summaries else NO_RUNS


def _offer_comparison(button: ui.button, grid: Grid) -> None:
    """Let the button lead to the comparison of exactly two chosen rows."""

    async def compare(_: Any) -> None:
        chosen = await grid.element.get_selected_rows()
        if len(chosen) != 2:
            ui.notify(f"Choose two runs by their boxes; {len(chosen)} chosen.", type="warning")
            return
        first, second = (row["id"] for row in chosen)
        ui.navigate.to("/compare?" + urlencode({"a": first, "b": second}))

    button.on_click(compare)
