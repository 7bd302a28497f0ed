"""The trained network as a figure: its stages as a U, with sizes and features."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from common.figures import COLOURS, INK, STYLE, WIDTH_INCH, svg_of
from common.planning.estimate import stage_sizes
from common.planning.plan import AnyConfiguration
from server.reporting.methods.told import TIMES

BOX_WIDTH, BOX_HEIGHT = 2.0, 0.62
SHIFT = 1.25  # of a stage to the middle, against the one above
WIDE_STAGES = 5  # networks with more have narrower boxes and smaller text
ARROW = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}


def network_svg(name: str, one: AnyConfiguration, n_inputs: int, n_outputs: int) -> str:
    """Draw a plan's U-Net: the encoder on the left, the decoder on the right, skips between.

    Args:
        name: of the configuration; part of the figure's name.
        one: strides, kernels and features.
        n_inputs: channels of the image.
        n_outputs: of the head.
    """
    sizes, n_stages = stage_sizes(one), len(one.kernel_sizes)
    width = 2 * SHIFT * (n_stages - 1) + BOX_WIDTH
    text_size = 7.0 if n_stages <= WIDE_STAGES else 6.0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCH, 0.66 * n_stages + 0.5), layout="constrained")
        panel = figure.subplots()
        for level, size in enumerate(sizes):
            left, right = level * SHIFT, width - level * SHIFT - BOX_WIDTH
            text = f"{one.features_per_stage[level]} features\n{TIMES.join(map(str, size))}"
            if level == n_stages - 1:
                _box(panel, left, level, text, COLOURS[1], text_size)
                continue
            _box(panel, left, level, text, COLOURS[0], text_size)
            _box(panel, right, level, text, COLOURS[2], text_size)
            _arrow(panel, (left + BOX_WIDTH, -level), (right, -level), dashed=True)
        for level in range(1, n_stages):
            _steps(panel, one, level, width)
        _ends(panel, width, n_inputs, n_outputs)
        panel.set(xlim=(-1.15, width + 1.15), ylim=(-n_stages + 0.55, 0.5))
        panel.set_axis_off()
        return svg_of(figure, f"network-{name}")


def _box(panel: Axes, left: float, level: int, text: str, colour: str, text_size: float) -> None:
    corner = (left, -level - BOX_HEIGHT / 2)
    box = FancyBboxPatch(
        corner,
        BOX_WIDTH,
        BOX_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=colour,
        edgecolor=colour,
        alpha=0.16,
    )
    panel.add_patch(box)
    panel.text(left + BOX_WIDTH / 2, -level, text, ha="center", va="center", fontsize=text_size)


def _arrow(
    panel: Axes, start: tuple[float, float], end: tuple[float, float], *, dashed: bool = False
) -> None:
    style = {**ARROW, "linestyle": (0, (4, 2))} if dashed else ARROW
    panel.annotate("", end, start, arrowprops=style)


def _steps(panel: Axes, one: AnyConfiguration, level: int, width: float) -> None:
    """Draw the way down to a stage, and up from it, with the stride beside each."""
    stride = TIMES.join(map(str, one.strides[level - 1]))
    bottom = BOX_HEIGHT / 2
    lefts, above = _lefts(level, width), _lefts(level - 1, width)
    for side in (0, 1):
        inner = 0.35 if side == 0 else BOX_WIDTH - 0.35
        outer = BOX_WIDTH - 0.45 if side == 0 else 0.45
        low = (lefts[side] + inner, -level + bottom)
        high = (above[side] + outer, -level + 1 - bottom)
        _arrow(panel, *((high, low) if side == 0 else (low, high)))
        place = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2)
        shift, align = (-0.14, "right") if side == 0 else (0.14, "left")
        panel.text(place[0] + shift, place[1], stride, ha=align, va="center", fontsize=6)


def _lefts(level: int, width: float) -> tuple[float, float]:
    return level * SHIFT, width - level * SHIFT - BOX_WIDTH


def _ends(panel: Axes, width: float, n_inputs: int, n_outputs: int) -> None:
    _arrow(panel, (-0.35, 0), (0, 0))
    _arrow(panel, (width, 0), (width + 0.35, 0))
    channels = "channel" if n_inputs == 1 else "channels"
    panel.text(-0.42, 0, f"{n_inputs} {channels}", ha="right", va="center", fontsize=7)
    panel.text(width + 0.42, 0, f"{n_outputs} outputs", ha="left", va="center", fontsize=7)
