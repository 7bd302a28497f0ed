"""Plots of a ranking as SVG text: which method beats which, and how firm the places are."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from common.figures import COLOURS, INK, STYLE, WIDTH_INCH, svg_of
from common.ranks.ranking import Ranking
from common.ranks.stability import Bootstrap
from server.reporting.report_data import method_label
from server.reporting.report_words import p_better

BOUNDS = ((0.001, 1.0), (0.01, 0.55), (0.05, 0.22))  # p below, and how strong the colour is
HUE = COLOURS[0]
ON_HUE = "#ffffff"  # text on the strongest colour, on a light page as on a dark one
CELL_ASPECT = 0.45  # height of a cell by its width
MOST_NUMBERS = 12  # methods of a map whose cells are wide enough for a number


def ranking_plots(ranking: Ranking) -> dict[str, str]:
    """Return the plots of a ranking by file stem; one method alone has none."""
    plots = {}
    if ranking.permutation:
        plots["significance"] = significance_svg(ranking)
    if ranking.bootstrap and len(ranking.methods) > 1:
        plots["rank-intervals"] = intervals_svg(ranking, ranking.bootstrap)
    return plots


def significance_svg(ranking: Ranking) -> str:
    """Draw a map of the permutation test: is the method of the row better than the column's?

    Methods stand in the order of the ranking, so that significant leads fill the upper triangle.
    """
    order = in_order(ranking)
    n_methods = len(order)
    cell_inch = min(0.75, (WIDTH_INCH - 2.2) / n_methods)
    with mpl.rc_context(STYLE):
        size = (WIDTH_INCH, 0.9 + CELL_ASPECT * cell_inch * n_methods)
        figure = Figure(figsize=size, layout="constrained")
        panel = figure.subplots()
        panel.set_aspect(CELL_ASPECT)
        panel.set_anchor("W")
        for row, method in enumerate(order):
            _draw_row(panel, row, order, p_better(ranking, method))
        labels = [method_label(method) for method in order]
        panel.set_xticks(range(n_methods), labels, rotation=30, ha="left", parse_math=False)
        panel.set_yticks(range(n_methods), labels, parse_math=False)
        panel.xaxis.tick_top()
        panel.tick_params(length=0)
        panel.set(xlim=(-0.5, n_methods - 0.5), ylim=(n_methods - 0.5, -0.5))
        panel.text(-0.62, -0.62, "better than …", ha="right", style="italic")
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
        return svg_of(figure, "significance")


def intervals_svg(ranking: Ranking, bootstrap: Bootstrap) -> str:
    """Draw every method's mean rank with its bootstrap interval, the best on top."""
    order = in_order(ranking)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, 0.85 + 0.3 * len(order)), layout="constrained")
        panel = figure.subplots()
        for place, method in enumerate(order):
            interval = bootstrap.intervals[method]
            panel.plot(interval.mean_rank, (place, place), color=HUE, linewidth=2.2)
            panel.plot(ranking.mean_rank[method], place, "o", color=INK, markersize=4.5)
            panel.annotate(
                places_text(interval.final_rank),
                (1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
            )
        panel.set_yticks(range(len(order)), [method_label(m) for m in order], parse_math=False)
        panel.set_ylim(len(order) - 0.5, -0.5)
        panel.tick_params(axis="y", length=0)
        panel.grid(visible=True, axis="x")
        panel.grid(visible=False, axis="y")
        panel.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))
        panel.set_xlabel("Mean rank (1 is best)")
        panel.set_title("Place", loc="right", fontweight="normal", fontsize=8)
        return svg_of(figure, "rank-intervals")


def in_order(ranking: Ranking) -> list[str]:
    """Return the methods, the best first."""
    return sorted(ranking.methods, key=lambda method: ranking.mean_rank[method])


def places_text(places: tuple[int, int]) -> str:
    """Return an interval of places as people write it."""
    low, high = places
    return f"{low}" if low == high else f"{low}\N{EN DASH}{high}"


def _draw_row(panel: Axes, row: int, order: list[str], p_values: Mapping[str, float]) -> None:
    for column, other in enumerate(order):
        p = p_values.get(other)
        strength = 0.0 if p is None else next((a for bound, a in BOUNDS if p < bound), 0.0)
        corner = (column - 0.5, row - 0.5)
        if strength:
            panel.add_patch(Rectangle(corner, 1, 1, facecolor=HUE, alpha=strength, linewidth=0))
        panel.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=0.4))
        if p is not None and len(order) <= MOST_NUMBERS:
            colour = ON_HUE if strength == 1.0 else INK
            text = f"{p:.3f}" if p >= 0.001 else "<0.001"
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
