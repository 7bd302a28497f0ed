"""Overlay pictures of a case: image, reference and prediction side by side.

A picture leaves the site only if the site's policy allows it. It holds one slice and the task's
label names; no case name, no date, and no text in the file's metadata.
"""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from client.scoring.appearance import colours_of, window_of
from common.axes import LabelMap, SpacingMm
from common.task import Task

FILL_ALPHA = 0.35  # the image stays visible below
MARGIN_VOXELS = 3
TITLES = ("Image", "Reference", "Prediction")
FOREGROUND, BACKGROUND = "#f2f2f2", "#000000"
PANEL_INCH = 2.2  # small, so that the letters stay legible where pages show pictures in pairs
DOTS_PER_INCH = 150
STYLE: dict[Any, Any] = {"font.family": "DejaVu Sans", "font.size": 10.0}  # comes with matplotlib


def overlay_png(
    image: NDArray[np.float32],
    reference: LabelMap,
    prediction: LabelMap,
    task: Task,
    *,
    spacing_mm: SpacingMm = (1.0, 1.0, 1.0),
) -> bytes:
    """Draw the axial slice with the largest reference, in radiological convention.

    Anterior is up and the patient's right is on the left; the letters R and L say so.

    Args:
        image: one channel, axes (z, y, x) of the RAS+ image.
        reference: same shape; empty where the case has none, then the largest prediction decides
            on the slice, and the largest part of the head where that is empty as well.
        prediction: same shape.
        task: names the labels.
        spacing_mm: voxel size, for the aspect of the pixels.

    Returns:
        A PNG of three panels; same input, same bytes.
    """
    z = _slice_index(image, reference, prediction)
    low, high = window_of(image)
    view = (z, *_occupied(image[z].astype(bool) | (reference[z] > 0) | (prediction[z] > 0)))
    grey, overlays = _displayed(image[view]), (reference[view], prediction[view])
    pixel_aspect = spacing_mm[1] / spacing_mm[2]
    with mpl.rc_context(STYLE):
        height_inch = PANEL_INCH * pixel_aspect * grey.shape[0] / grey.shape[1] + 0.75
        figure = Figure(figsize=(3 * PANEL_INCH, height_inch), facecolor=BACKGROUND)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.07)
        panels = figure.subplots(1, 3)
        for panel, title in zip(panels, TITLES, strict=True):
            panel.imshow(
                grey,
                cmap="gray",
                vmin=low,
                vmax=high,
                aspect=pixel_aspect,
                interpolation="bilinear",
            )
            _finish(panel, title)
        for panel, labels in zip(panels[1:], overlays, strict=True):
            _draw_labels(panel, _displayed(labels), task)
        _draw_legend(figure, task)
        return _png(figure)


def _displayed(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    """Turn (y, x) of RAS+ into rows from anterior and columns from the patient's right."""
    return plane[::-1, ::-1]


def _slice_index(image: NDArray[np.float32], reference: LabelMap, prediction: LabelMap) -> int:
    for volume in (reference, prediction, image):
        areas = np.count_nonzero(volume, axis=(1, 2))
        if areas.any():
            return int(areas.argmax())
    return int(image.shape[0]) // 2


def _occupied(plane: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the part of a slice (y, x) that holds anything, with a margin; else all of it."""
    if not plane.any():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
    return _with_margin(rows), _with_margin(columns)


def _with_margin(used: NDArray[np.intp]) -> slice:
    return slice(max(0, int(used[0]) - MARGIN_VOXELS), int(used[-1]) + 1 + MARGIN_VOXELS)


def _draw_labels(panel: Axes, labels: NDArray[np.generic], task: Task) -> None:
    for label, colour in colours_of(task).items():
        mask = labels == label
        if mask.any():
            red, green, blue = mpl.colors.to_rgb(colour)
            fill = np.zeros((*mask.shape, 4))
            fill[mask] = (red, green, blue, FILL_ALPHA)
            panel.imshow(fill, aspect=panel.get_aspect(), interpolation="nearest")
            # A border of one pixel closes the outlines of regions that touch the edge.
            padded = np.pad(mask, 1).astype(np.float32)
            rows, columns = (np.arange(-1, length + 1) for length in mask.shape)
            panel.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=0.9)


def _finish(panel: Axes, title: str) -> None:
    panel.autoscale(False)  # the overlays' borders do not widen the view
    panel.set_axis_off()
    panel.set_title(title, color=FOREGROUND, fontsize=11)
    for side, letter in ((0.02, "R"), (0.98, "L")):
        panel.text(
            side,
            0.5,
            letter,
            transform=panel.transAxes,
            color=FOREGROUND,
            ha="left" if letter == "R" else "right",
            va="center",
        )


def _draw_legend(figure: Figure, task: Task) -> None:
    names = {value: name for name, value in task.labels.items()}
    colours = colours_of(task)
    keys = [Patch(facecolor=colour, edgecolor=colour) for colour in colours.values()]
    legend = figure.legend(
        keys,
        [names[label] for label in colours],
        loc="outside lower center",
        ncols=min(len(keys), 6),
        frameon=False,
        labelcolor=FOREGROUND,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    nothing = {"Software": None}  # matplotlib would name itself and its version
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata=nothing)
    return buffer.getvalue()
