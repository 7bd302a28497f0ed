"""Two runs side by side: the same charts, and every setting in which they differ."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from nicegui import html, ui

from server.dashboard.pages.chart import Chart, Drawing, make_chart
from server.dashboard.pages.curves import method_lines, two_runs_drawing
from server.dashboard.pages.frame import banners, empty_state, framed, run_address, section
from server.dashboard.pages.grid import Column, Grid, Row, make_grid
from server.dashboard.pages.live import Reading, keep_fresh
from server.dashboard.pages.overview import facts
from server.dashboard.pages.round_drawings import timeline_drawing
from server.dashboard.pages.words import text_or_dash
from server.dashboard.views import RunDetail
from server.reporting.report_data import method_label

MISSING = "not set"
ABSENT = "Choose two runs above. A run that was renamed or deleted cannot be shown any more."


async def compare_page(reading: Reading, first: str, second: str) -> None:
    """Build the page of two runs; of names that are unknown, one where runs can be chosen."""
    summaries = await reading.ask(reading.store.summaries)
    found = await _both(reading, first, second)
    with framed("Compare two runs"):
        _choose([run.name for run in summaries], first, second)
        if found is None:
            empty_state(ABSENT)
            return
        for detail in found:
            banners(detail)
        numbers = _numbers(found)
        curves = _curves(found)
        _settings(found)
        bars = _rounds(found)

    async def refresh() -> None:
        pair = await _both(reading, first, second)
        if pair is None:
            return
        numbers.show(list(number_rows(pair)))
        for what, chart in curves:
            chart.show(_drawing(pair, what))
        for bar, detail in zip(bars, pair, strict=True):
            method = detail.summary.method
            if bar is not None and method in detail.rounds:
                bar.show(timeline_drawing(detail.rounds[method]))

    keep_fresh(reading, refresh)


async def _both(reading: Reading, first: str, second: str) -> tuple[RunDetail, RunDetail] | None:
    one = await reading.detail(first)
    other = await reading.detail(second)
    return None if one is None or other is None else (one, other)


def _choose(names: Sequence[str], first: str, second: str) -> None:
    chosen = {"a": first, "b": second}

    def go(which: str, name: str) -> None:
        chosen[which] = name
        if all(chosen.values()):
            ui.navigate.to("/compare?" + urlencode(chosen))

    with html.div().classes("tools"):
        for which, label in (("a", "First run"), ("b", "Second run")):
            ui.select(
                list(names),
                label=label,
                value=chosen[which] if chosen[which] in names else None,
                with_input=True,
                on_change=lambda event, which=which: go(which, event.value),
            ).props("outlined dense").classes("many")


def _numbers(pair: tuple[RunDetail, RunDetail]) -> Grid:
    with section("Numbers"):
        for detail in pair:
            ui.link(detail.summary.name, run_address(detail.summary.name)).style(
                "margin-right: 1em"
            )
        return make_grid("Numbers of both runs", _columns(pair, "What"), list(number_rows(pair)))


def number_rows(pair: tuple[RunDetail, RunDetail]) -> Iterator[Row]:
    """Yield the numbers of both runs, a line for each."""
    yield {"id": "State", "what": "State", "a": pair[0].summary.state, "b": pair[1].summary.state}
    for (name, one), (_, other) in zip(facts(pair[0]), facts(pair[1]), strict=True):
        yield {"id": name, "what": name, "a": one, "b": other}


def _curves(pair: tuple[RunDetail, RunDetail]) -> list[tuple[str, Chart]]:
    with (
        section("Learning curves", "Means over sites, of every method of both runs."),
        html.div().classes("pair"),
    ):
        return [(what, make_chart(_drawing(pair, what))) for what in ("Dice", "Loss")]


def _drawing(pair: tuple[RunDetail, RunDetail], what: str) -> Drawing:
    lines = [
        line for detail in pair for line in method_lines(detail.summary.name, detail.rounds, what)
    ]
    return two_runs_drawing(what, lines)


def _settings(pair: tuple[RunDetail, RunDetail]) -> None:
    rows = list(setting_rows(pair[0].files.config, pair[1].files.config))
    n_same = len(pair[0].files.config.keys() & pair[1].files.config.keys()) - sum(
        MISSING not in (row["a"], row["b"]) for row in rows
    )
    with section("Settings that differ", f"Of config.toml; {n_same} settings are the same."):
        make_grid(
            "Settings that differ",
            _columns(pair, "Setting"),
            rows,
            empty="None: both runs have the same settings, or no config.toml.",
        )


def setting_rows(one: dict[str, str], other: dict[str, str]) -> Iterator[Row]:
    """Yield the settings in which two configurations differ."""
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            values = {"a": one.get(name, MISSING), "b": other.get(name, MISSING)}
            yield {"id": name, "what": name, **values}


def _rounds(pair: tuple[RunDetail, RunDetail]) -> list[Chart | None]:
    charts: list[Chart | None] = []
    with section("Time of the rounds", "Of the method at hand."), html.div().classes("pair"):
        for detail in pair:
            with html.div():
                method = detail.summary.method
                html.h3(f"{detail.summary.name}: {method_label(method) or text_or_dash(None)}")
                if method in detail.rounds:
                    charts.append(make_chart(timeline_drawing(detail.rounds[method])))
                else:
                    charts.append(None)
                    empty_state("No round yet.")
    return charts


def _columns(pair: tuple[RunDetail, RunDetail], what: str) -> tuple[Column, ...]:
    names = [detail.summary.name for detail in pair]
    return (
        Column("what", what, "What is compared", width=250),
        Column("a", names[0], f"Of the run {names[0]}", width=150, wide=True),
        Column("b", names[1], f"Of the run {names[1]}", width=150, wide=True),
    )
