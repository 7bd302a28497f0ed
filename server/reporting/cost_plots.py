"""How long the rounds of a run took, as SVG text: training, and all the rest."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from common.figures import COLOURS, STYLE, WIDTH_INCH, svg_of
from server.reporting.costs import RoundTime
from server.reporting.report_data import method_label

HUE = COLOURS[0]
REST_ALPHA = 0.3
FEW_ROUNDS = 6
MOST_PANELS = 3  # in a row: more are too narrow for their titles


def round_times_svg(times: dict[str, tuple[RoundTime, ...]]) -> str:
    """Draw the time of every round, one panel per method.

    Args:
        times: by method, at least one with rounds.
    """
    n_columns = min(MOST_PANELS, len(times))
    n_rows = -(-len(times) // n_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, 1.7 * n_rows + 0.4), layout="constrained")
        panels = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
        for panel in panels.flat[len(times) :]:
            panel.set_axis_off()
        for panel, (method, rounds) in zip(panels.flat, times.items(), strict=False):
            _draw(panel, rounds)
            panel.set_title(method_label(method), parse_math=False)
        for row in panels:
            row[0].set_ylabel("Time (s)")
        keys = [Patch(color=HUE), Patch(color=HUE, alpha=REST_ALPHA, linewidth=0)]
        names = ["training", "transport, waiting, checks, aggregation"]
        figure.legend(keys, names, loc="outside lower center", ncols=2)
        return svg_of(figure, "round-times")


def _draw(panel: Axes, rounds: tuple[RoundTime, ...]) -> None:
    numbers = [one.round for one in rounds]
    trained = [min(one.seconds, one.training_seconds) for one in rounds]
    rest = [one.seconds - training for one, training in zip(rounds, trained, strict=True)]
    panel.bar(numbers, trained, width=0.75, color=HUE)
    panel.bar(numbers, rest, width=0.75, bottom=trained, color=HUE, alpha=REST_ALPHA, linewidth=0)
    panel.set_xlabel("Round")
    margin = max(0.6, (FEW_ROUNDS - len(rounds)) / 2)  # few bars stay narrow
    panel.set_xlim(numbers[0] - margin, numbers[-1] + margin)
    few = FixedLocator(numbers)
    many = MaxNLocator(nbins=6, integer=True, min_n_ticks=1)
    panel.xaxis.set_major_locator(few if len(rounds) <= FEW_ROUNDS else many)
