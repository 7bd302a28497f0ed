"""Epsilon over steps as SVG: same ledger, same bytes."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from common.figures import COLOURS, INK, STYLE, WIDTH_INCH, svg_of


def epsilon_svg(points: Sequence[tuple[int, float]], budget: float, delta: float) -> str:
    """Draw what was spent after so many noisy steps, and the budget.

    Args:
        points: (steps, epsilon), growing.
        budget: epsilon that all runs together may cost.
        delta: of both.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, 2.7), layout="constrained")
        panel = figure.subplots()
        panel.plot(*zip(*points, strict=True), color=COLOURS[0], marker=".", clip_on=False)
        panel.axhline(budget, color=INK, linestyle=(0, (5, 2)), linewidth=1.1)
        panel.annotate(
            f"budget {budget:g}",
            (0.02, budget),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=7,
        )
        panel.set_xlabel("Noisy steps, all runs")
        panel.set_ylabel(f"Epsilon at delta {delta:g} (no unit)")
        panel.set_xlim(left=0)
        panel.set_ylim(0, 1.08 * max(budget, *(epsilon for _, epsilon in points)))
        return svg_of(figure, "epsilon")
