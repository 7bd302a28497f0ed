"""The plots of a page of scores: a box per region, and Dice against the size of the region."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from client.scoring.score import RegionResult
from common.figures import (
    COLOURS,
    HD95_TICKS_MM,
    MARKERS,
    STYLE,
    WIDTH_INCH,
    box_with_points,
    for_page,
    svg_of,
)

HEIGHT_INCH = 2.9
VOLUME_TICKS_ML = (0, 0.1, 1, 10, 100, 1000)


def boxes_svg(results: Mapping[str, Sequence[RegionResult]]) -> str:
    """Draw Dice and HD95 of every case, and a box per region, as a page needs it.

    Args:
        results: of all cases, by region.

    Returns:
        SVG text; boxes are quartiles with the median, whiskers end within 1.5 boxes' lengths.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, HEIGHT_INCH), layout="constrained")
        dice, hd95 = figure.subplots(1, 2)
        _draw_boxes(dice, results, "dice")
        dice.set_ylabel("Dice (fraction)")
        dice.set_ylim(-0.03, 1.03)
        _draw_boxes(hd95, results, "hd95")
        hd95.set_ylabel("HD95 (mm)")
        _scale_logarithmically(hd95, "y", HD95_TICKS_MM, linear_below=1.0, low=-0.15, high=500)
        return for_page(svg_of(figure, "boxes"))


def volumes_svg(results: Mapping[str, Sequence[RegionResult]]) -> str:
    """Draw Dice against the reference's volume, one panel per region; empty references at 0."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, HEIGHT_INCH), layout="constrained")
        panels = figure.subplots(1, len(results), sharex=True, sharey=True, squeeze=False)[0]
        for index, (panel, region) in enumerate(zip(panels, results, strict=True)):
            volumes = [result.reference_ml for result in results[region]]
            dice = [result.score.dice for result in results[region]]
            style = {"color": COLOURS[index % 6], "marker": MARKERS[index % 7]}
            panel.scatter(volumes, dice, s=12, alpha=0.7, linewidths=0, clip_on=False, **style)
            panel.set_title(region, parse_math=False)
            _scale_logarithmically(panel, "x", VOLUME_TICKS_ML, linear_below=0.1, low=-0.02)
        panels[0].set_ylabel("Dice (fraction)")
        panels[0].set_ylim(-0.03, 1.03)
        figure.supxlabel("Volume of the reference (mL)", fontsize=8)
        return for_page(svg_of(figure, "volumes"))


def _draw_boxes(
    panel: Axes, results: Mapping[str, Sequence[RegionResult]], metric: Literal["dice", "hd95"]
) -> None:
    for position, region in enumerate(results):
        values = [getattr(result.score, metric) for result in results[region]]
        box_with_points(panel, position, values, COLOURS[position % 6])
    panel.set_xlim(-0.6, len(results) - 0.4)
    panel.set_xticks(range(len(results)), list(results), rotation=20 if len(results) > 4 else 0)
    for label in panel.get_xticklabels():
        label.set_parse_math(False)  # a dollar sign in a region's name is not a formula


def _scale_logarithmically(
    panel: Axes,
    side: Literal["x", "y"],
    ticks: Sequence[float],
    *,
    linear_below: float,
    low: float,
    high: float | None = None,
) -> None:
    """Make an axis logarithmic, and linear below a value, so that 0 has a place."""
    axis = panel.xaxis if side == "x" else panel.yaxis
    scale, limit = (
        (panel.set_xscale, panel.set_xlim) if side == "x" else (panel.set_yscale, panel.set_ylim)
    )
    scale("symlog", linthresh=linear_below, linscale=0.4)
    limit(low, high)
    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
