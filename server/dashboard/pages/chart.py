"""Charts: Apache ECharts, each with a description and the same numbers as a table.

Drawn as SVG, whose texts and axes in the text's colour follow light and dark by the style sheet.
Tips are drawn text, never HTML. Names stand in values only; see `grid`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import html, ui

from common.figures import COLOURS, INK
from server.dashboard.pages.frame import empty_state
from server.dashboard.pages.grid import Column, Grid, Row, make_grid

SYMBOLS = ("circle", "rect", "triangle", "diamond", "roundRect", "arrow")
DASHES = ("solid", "dashed", "dotted")
FONT = "Roboto, sans-serif"  # comes with the pages; named, for legends are measured by it
MUTED = "#8a8f98"  # grid lines; seen on light and on dark
MARKED_POINTS = 40  # more points than these are a line without marks
UNSEEN = ", lower end"
OLDEST_SHOWN = 50  # rounds of a bar chart before one scrolls back


@dataclass(frozen=True)
class Drawing:
    """What a chart shows, three times: drawn, in a sentence, as a table."""

    options: dict[str, Any]
    description: str
    columns: Sequence[Column]
    rows: Callable[[], Sequence[Row]]
    """Made when somebody opens the table."""
    missing: str = ""
    """What is missing and why, where there is nothing to draw."""


@dataclass
class Chart:
    """A chart on a page, and what it shows now."""

    shown: Drawing
    element: ui.echart | None
    box: html.div
    table_box: ui.expansion | None = None
    table: Grid | None = None

    def show(self, drawing: Drawing) -> None:
        """Send a drawing if it differs from the one shown."""
        before, self.shown = self.shown, drawing
        if bool(drawing.missing) or self.element is None:
            if drawing != before:
                self.build()
            return
        if drawing.options != before.options:
            self.element.run_chart_method("setOption", drawing.options, {"notMerge": True})
            self.element.props["aria-label"] = drawing.description
        if self.table is not None:
            self.table.show(drawing.rows())

    def build(self) -> None:
        """Put the elements into the box, in place of those before."""
        self.box.clear()
        self.element, self.table = None, None
        with self.box:
            if self.shown.missing:
                empty_state(self.shown.missing)
                return
            self.element = ui.echart(self.shown.options, renderer="svg").classes("chart")
            self.element.props.update({"role": "img", "aria-label": self.shown.description})
            self.table_box = ui.expansion("Show as table")
            self.table_box.on_value_change(self._open_table)

    def _open_table(self) -> None:
        if self.table is None and self.table_box is not None:
            with self.table_box:
                label = f"Table of: {self.shown.description}"
                self.table = make_grid(label, self.shown.columns, self.shown.rows())


def make_chart(drawing: Drawing) -> Chart:
    """Put a chart on the page."""
    chart = Chart(drawing, None, html.div())
    chart.build()
    return chart


def options(
    *,
    x: str,
    y: str,
    series: Sequence[dict[str, Any]],
    kind: str = "value",
    most: float | None = None,
    least: float | None = None,
    names: Sequence[str] = (),
    zoom: bool = False,
) -> dict[str, Any]:
    """Return the options that all charts share.

    Args:
        x: title of the axis, with its unit.
        y: as well.
        series: what is drawn.
        kind: of the x axis: value or category.
        most: end of the y axis; by the data if absent.
        least: as well.
        names: categories of the x axis.
        zoom: whether one can scroll along the x axis.
    """
    line = {"lineStyle": {"color": MUTED, "opacity": 0.35}}
    text = {"color": INK, "fontSize": 12, "fontFamily": FONT}
    return {
        "animation": False,
        "color": list(COLOURS),
        "textStyle": {"color": INK, "fontFamily": FONT},
        "legend": {"type": "scroll", "top": 0, "textStyle": text, "data": _in_legend(series)},
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "grid": {"left": 62, "right": 24, "top": 56, "bottom": 84 if zoom else 48},
        "xAxis": {
            "type": kind,
            "name": x,
            "nameLocation": "middle",
            "nameGap": 28,
            "nameTextStyle": text,
            "axisLabel": text,
            "splitLine": {"show": False},
            **({"data": list(names)} if kind == "category" else {"minInterval": 1}),
            **({"min": "dataMin", "max": "dataMax"} if kind == "value" else {}),
        },
        "yAxis": {
            "type": "value",
            "name": y,
            "nameLocation": "end",
            "nameTextStyle": {**text, "align": "left", "padding": [0, 0, 0, -50]},
            "axisLabel": text,
            "splitLine": line,
            **({} if most is None else {"max": most}),
            **({} if least is None else {"min": least}),
        },
        "series": list(series),
        **({"dataZoom": _zoom(len(names))} if zoom else {}),
    }


def line_series(
    name: str, points: Sequence[tuple[float, float]], place: int, *, thick: bool = False
) -> dict[str, Any]:
    """Return a line; hue, mark and dashes tell it from others, also without colours."""
    return {
        "type": "line",
        "name": name,
        "data": [list(point) for point in points],
        "symbol": SYMBOLS[place % len(SYMBOLS)],
        "symbolSize": 6,
        "showSymbol": len(points) <= MARKED_POINTS,
        "lineStyle": {
            "width": 3 if thick else 1.6,
            "type": DASHES[place // len(COLOURS) % len(DASHES)],
        },
        "itemStyle": {"color": COLOURS[place % len(COLOURS)]},
        "emphasis": {"disabled": True},
    }


def band_series(
    name: str, low: Sequence[tuple[float, float]], high: Sequence[tuple[float, float]], colour: str
) -> list[dict[str, Any]]:
    """Return a band between two lines of the same rounds: an unseen line, and an area on it."""
    stacked = {"stack": name, "stackStrategy": "all"}  # else not across zero
    unseen = {"type": "line", **stacked, "symbol": "none", "lineStyle": {"opacity": 0}}
    heights = [[x, top - bottom] for (x, bottom), (_, top) in zip(low, high, strict=True)]
    hushed = {"tooltip": {"show": False}, "emphasis": {"disabled": True}, "silent": True}
    return [
        {**unseen, **hushed, "name": name + UNSEEN, "data": [list(at) for at in low]},
        {
            **unseen,
            **hushed,
            "name": name,
            "data": heights,
            "areaStyle": {"color": colour, "opacity": 0.18},
            "itemStyle": {"color": colour, "opacity": 0.35},
        },
    ]


def _in_legend(series: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of what is seen, each once."""
    return list(dict.fromkeys(one["name"] for one in series if not one["name"].endswith(UNSEEN)))


def _zoom(n_names: int) -> list[dict[str, Any]]:
    first = max(0, n_names - OLDEST_SHOWN)
    shown = {"startValue": first, "endValue": max(0, n_names - 1), "filterMode": "filter"}
    return [
        {"type": "slider", "bottom": 8, "height": 20, "showDataShadow": False, **shown},
        {"type": "inside", **shown},
    ]
