"""How every plot looks, and plots as SVG text for a page: same data, same bytes.

Figures are explicit objects (no pyplot state). Hues can be told apart by colour-blind readers as
well (Okabe and Ito, https://jfly.uni-koeln.de/color); markers do so in a grey print.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito without black (the text's colour) and yellow (too pale on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # 7 markers x 6 hues: 42 pairs before one repeats
INK = "#1b1e24"  # text and axes; one unusual value, so that a page can replace it by its own
PAPER = "#fffffe"  # background; as above
WIDTH_INCH = 7.2  # two columns of a journal page
GOLDEN_FRACTION = 0.6180339887  # spreads points evenly in any number, without a random generator
HD95_TICKS_MM = (0, 1, 3, 10, 30, 100, 373)  # the last: one of both masks is empty
STYLE: dict[Any, Any] = {  # matplotlib types every key as a literal
    "svg.hashsalt": "consilium",  # otherwise identifiers are random
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#8a8f98",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.6,
    "legend.frameon": False,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def box_with_points(panel: Axes, position: int, values: Sequence[float], colour: str) -> None:
    """Draw every value as a point beside others, and a box from quartile to quartile over them.

    Args:
        panel: where.
        position: on its x axis; also chooses the marker.
        values: maybe none, then nothing is drawn.
        colour: of box and points.
    """
    offsets = [(index * GOLDEN_FRACTION % 1 - 0.5) * 0.4 for index in range(len(values))]
    places = [position + offset for offset in offsets]
    marker = MARKERS[position % len(MARKERS)]
    panel.scatter(places, values, s=9, color=colour, alpha=0.6, linewidths=0, marker=marker)
    if not len(values):
        return
    line = {"color": colour, "linewidth": 1.1}
    panel.boxplot(
        [values],
        positions=[position],
        widths=0.62,
        showfliers=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": colour, "linewidth": 2.4},
    )


def svg_of(figure: Figure, name: str) -> str:
    """Return a figure as SVG text whose identifiers begin with its name."""
    buffer = io.StringIO()
    absent = dict.fromkeys(("Creator", "Date", "Format", "Type"))  # no date: same data, same bytes
    figure.savefig(buffer, format="svg", metadata=absent)
    svg = re.sub(r'<g id="[^"]*">', "<g>", buffer.getvalue())
    # Several plots share a page: an identifier must occur once.
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def for_page(svg: str) -> str:
    """Return a plot for a page's body: the page's own text colour and background, no namespaces."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r' xmlns(:xlink)?="[^"]*"', "", body)
    return body.replace(INK, "currentColor").replace(PAPER, "none").strip()
