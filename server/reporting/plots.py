"""The report's plots as SVG text: same run, same bytes.

Hue and marker tell sites or methods apart; how a plot looks stands in `common.figures`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Literal, TypeAlias

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from common.figures import (
    COLOURS,
    HD95_TICKS_MM,
    INK,
    MARKERS,
    STYLE,
    WIDTH_INCH,
    box_with_points,
    svg_of,
)
from server.events import FloorMeasured, SiteTrained, SiteValidated, SumOpened
from server.reporting.report_data import method_label

Metric = Literal["dice", "hd95"]
Curves: TypeAlias = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Value by method, site and round."""
SUM = "all sites (one sum)"
"""Name of the curve of rounds of which only sums are seen."""


def loss_svg(
    trained: Sequence[SiteTrained],
    sites: Sequence[str],
    methods: Sequence[str],
    sums: Sequence[SumOpened] = (),
) -> str:
    """Draw the mean training loss per round and site, or of all in a sum; a panel per method."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for event in trained:
        if event.loss is not None:
            values.setdefault(event.method, {}).setdefault(event.site, {})[event.round] = event.loss
    for opened in sums:
        if opened.loss is not None:
            values.setdefault(opened.method, {}).setdefault(SUM, {})[opened.round] = opened.loss
    names = _shown_in(values, sites)
    return _curves_svg(values, names, methods, name="loss", y_label="Training loss (no unit)")


def dice_svg(
    validated: Sequence[SiteValidated],
    sites: Sequence[str],
    methods: Sequence[str],
    sums: Sequence[SumOpened] = (),
) -> str:
    """Draw Dice on the sites' own validation cases, mean over regions, one panel per method."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for event in validated:
        if event.dice:
            mean = sum(event.dice.values()) / len(event.dice)
            values.setdefault(event.method, {}).setdefault(event.site, {})[event.round] = mean
    for opened in sums:
        if opened.dice:  # of the weights as received, after the round before
            mean = sum(opened.dice.values()) / len(opened.dice)
            values.setdefault(opened.method, {}).setdefault(SUM, {})[opened.round - 1] = mean
    label = "Dice, mean over regions (fraction)"
    names = _shown_in(values, sites)
    return _curves_svg(values, names, methods, name="dice", y_label=label, y_limits=(-0.02, 1.0))


def held_out_svg(
    scores: pd.DataFrame,
    metric: Metric,
    methods: Sequence[str],
    floors: Sequence[FloorMeasured] = (),
) -> str:
    """Draw every case and a box per method, one panel per region.

    Args:
        scores: rows of one held-out site, columns method, region and `metric`.
        metric: Dice as a fraction; HD95 in mm on an axis that is linear below 1 mm and
            logarithmic above.
        methods: order of the boxes.
        floors: learning-free baselines; drawn into the Dice panel of their region.

    Returns:
        SVG text; boxes are quartiles with the median, whiskers end within 1.5 boxes' lengths.
    """
    regions = list(dict.fromkeys(scores["region"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, 2.9), layout="constrained")
        panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
        for panel, region in zip(panels, regions, strict=True):
            rows = scores[scores["region"] == region]
            _draw_boxes(panel, rows, metric, methods)
            panel.set_title(region, parse_math=False)
            if metric == "dice":
                _draw_floors(panel, [floor for floor in floors if floor.region == region])
        _label_metric_axis(panels[0], metric)
        return svg_of(figure, f"held-out-{metric}")


def site_styles(sites: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return (colour, marker) per site, by its position: the same in every plot of a run."""
    markers = (MARKERS[(index % 6 + index // 6) % 7] for index in range(len(sites)))
    return dict(zip(sites, zip(cycle(COLOURS), markers, strict=False), strict=False))


def _shown_in(curves: Curves, sites: Sequence[str]) -> Sequence[str]:
    """Return the names of a plot's curves: the sites' own, or only that of their sum."""
    found = {name for by_site in curves.values() for name in by_site}
    if SUM not in found:
        return sites
    return (*(site for site in sites if site in found), SUM)


def _curves_svg(
    curves: Curves,
    sites: Sequence[str],
    methods: Sequence[str],
    *,
    name: str,
    y_label: str,
    y_limits: tuple[float, float] | None = None,
) -> str:
    shown = [method for method in methods if method in curves]
    n_columns = max(1, min(6, 84 // (max(map(len, sites), default=0) + 6)))  # letters on a line
    n_legend_lines = -(-len(sites) // n_columns)
    with mpl.rc_context(STYLE):
        size = (WIDTH_INCH, 2.5 + 0.17 * n_legend_lines)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, max(1, len(shown)), sharex=True, sharey=True, squeeze=False)[0]
        for panel, method in zip(panels, shown, strict=False):
            _draw_curves(panel, curves[method], sites)
            panel.set_title(method_label(method), parse_math=False)
        if y_limits:
            panels[0].set_ylim(*y_limits)
        panels[0].set_ylabel(y_label)
        _draw_legend(figure, sites, n_columns)
        return svg_of(figure, name)


def _draw_curves(
    panel: Axes, curves: Mapping[str, Mapping[int, float]], sites: Sequence[str]
) -> None:
    for site, (colour, marker) in site_styles(sites).items():
        rounds = sorted(curves.get(site, {}))
        values = [curves[site][number] for number in rounds]
        if rounds:  # the layout cannot measure an empty line
            panel.plot(rounds, values, color=colour, marker=marker, clip_on=False)
    panel.set_xlabel("Round")
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _draw_legend(figure: Figure, sites: Sequence[str], n_columns: int) -> None:
    styles = site_styles(sites).values()
    keys = [Line2D([], [], color=colour, marker=marker) for colour, marker in styles]
    legend = figure.legend(keys, sites, loc="outside lower center", ncols=n_columns)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a site's name is not a formula


def _draw_boxes(panel: Axes, rows: pd.DataFrame, metric: Metric, methods: Sequence[str]) -> None:
    for position, (method, colour) in enumerate(
        zip(methods, islice(cycle(COLOURS), len(methods)), strict=True)
    ):
        values = rows.loc[rows["method"] == method, metric].astype(float).tolist()
        box_with_points(panel, position, values, colour)
    panel.set_xlim(-0.6, len(methods) - 0.4)
    labels = [method_label(method) for method in methods]
    panel.set_xticks(range(len(methods)), labels, rotation=20 if len(methods) > 3 else 0)


def _draw_floors(panel: Axes, floors: Sequence[FloorMeasured]) -> None:
    for floor in floors:
        panel.axhline(floor.mean_dice, color=INK, linestyle=(0, (5, 2)), linewidth=1.1)
        panel.annotate(
            f"floor {floor.mean_dice:.3f}",
            (0.02, floor.mean_dice),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=7,
        )


def _label_metric_axis(panel: Axes, metric: Metric) -> None:
    if metric == "dice":
        panel.set_ylabel("Dice (fraction)")
        panel.set_ylim(-0.03, 1.03)
        return
    panel.set_ylabel("HD95 (mm)")
    panel.set_yscale("symlog", linthresh=1.0, linscale=0.4)
    panel.set_ylim(-0.15, 500)
    panel.yaxis.set_major_locator(FixedLocator(HD95_TICKS_MM))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
