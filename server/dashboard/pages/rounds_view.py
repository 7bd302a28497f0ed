"""The rounds of a run in time: how long each took, and which site it waited for."""

from nicegui import html, ui

from server.dashboard.pages.chart import Chart, make_chart
from server.dashboard.pages.frame import empty_state, section
from server.dashboard.pages.grid import Grid, make_grid
from server.dashboard.pages.live import Refresh
from server.dashboard.pages.round_drawings import (
    NO_ROUNDS,
    WAIT_COLUMNS,
    round_drawing,
    timeline_drawing,
    wait_rows,
    waiting_drawing,
)
from server.dashboard.views import RunDetail
from server.reporting.report_data import method_label


def rounds_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    view = _RoundsView(detail)
    return view.show


class _RoundsView:
    """The elements of the view: which method and round are shown, and where."""

    def __init__(self, detail: RunDetail) -> None:
        self.rounds = detail.rounds
        self.method = detail.summary.method or next(iter(detail.rounds), "")
        self.round: int | None = None
        self.box = html.div()
        self._build()

    def show(self, detail: RunDetail) -> None:
        grown = set(detail.rounds) != set(self.rounds) or not self.rounds
        self.rounds = detail.rounds
        if grown:
            self.method = self.method or detail.summary.method or next(iter(detail.rounds), "")
            self.box.clear()
            self._build()
        elif self.method in self.rounds:
            self._draw()

    def _build(self) -> None:
        with self.box:
            if self.method not in self.rounds:
                empty_state(NO_ROUNDS)
                return
            found = self.rounds[self.method]
            with html.div().classes("tools"):
                ui.select(
                    {name: method_label(name) for name in self.rounds},
                    label="Method",
                    value=self.method,
                    on_change=lambda event: self._choose(event.value),
                ).props("outlined dense")
            with section("Time of the rounds", "The slowest site's training, and everything else."):
                self.timeline: Chart = make_chart(timeline_drawing(found))
            with section(
                "Who is waited for", "A mark for each round, at the site that took longest."
            ):
                self.marks: Chart = make_chart(waiting_drawing(found))
                self.waits: Grid = make_grid("Who is waited for", WAIT_COLUMNS, wait_rows(found))
            with section("One round", "Every site's training; the round waits for the longest."):
                with html.div().classes("tools"):
                    ui.number(
                        "Round; the last one if empty",
                        min=1,
                        format="%d",
                        on_change=lambda event: self._choose_round(event.value),
                    ).props("outlined dense clearable").classes("many")
                self.one: Chart = make_chart(round_drawing(found, self.round))

    def _choose(self, method: str) -> None:
        self.method = method
        self._draw()

    def _choose_round(self, number: float | None) -> None:
        self.round = None if number is None else int(number)
        self._draw()

    def _draw(self) -> None:
        found = self.rounds[self.method]
        self.timeline.show(timeline_drawing(found))
        self.marks.show(waiting_drawing(found))
        self.one.show(round_drawing(found, self.round))
        self.waits.show(wait_rows(found))
