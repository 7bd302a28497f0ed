"""Three planes of one channel side by side, small, with the label's outline: for a local page.

They show a patient. Unlike `client.scoring.pictures`, which a policy may release, they never leave.
"""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from client.scoring.appearance import COLOURS
from common.axes import LabelMap, SpacingMm
from common.task import Task

EDGE_PIXELS = 120  # of the square that holds one plane
QUALITY = 70  # WebP, about 5 KB per channel: a page of 1,251 cases stays below 30 MB
WINDOW_PERCENT = (1.0, 99.0)  # of the non-zero voxels: skull-stripped images are zero outside
MARGIN_VOXELS = 2
OTHER_AXES = ((1, 2), (0, 2), (0, 1))  # of z, y, x
PLANES = ("axial", "coronal", "sagittal")  # across z, y, x; in this order from left to right


def draw_planes(
    channel: NDArray[np.float32], labels: LabelMap | None, task: Task, *, spacing_mm: SpacingMm
) -> bytes:
    """Draw the planes through the centre of the label, or of the image where there is none.

    Radiological convention: the patient's right is on the left, anterior and superior are up,
    and a sagittal plane looks to the left.

    Args:
        channel: one channel of the RAS+ image, axes (z, y, x); voxels may be NaN.
        labels: same shape, or None.
        task: gives each label its colour.
        spacing_mm: voxel size; millimetres have one length in all three planes.

    Returns:
        A WebP of 3 x 1 squares; same input, same bytes.
    """
    finite = np.nan_to_num(channel, posinf=0.0, neginf=0.0)
    box = _occupied(finite if labels is None else np.where(labels, 1, finite))
    finite, labels = finite[box], None if labels is None else labels[box]
    centre, window = _centre(labels, finite.shape), _window(finite)
    longest_mm = max(size * step for size, step in zip(finite.shape, spacing_mm, strict=True))
    sheet = np.zeros((EDGE_PIXELS, len(PLANES) * EDGE_PIXELS, 3), np.uint8)
    for axis in range(3):
        across = [step for other, step in enumerate(spacing_mm) if other != axis]
        grey = _displayed(finite, axis, centre[axis])
        pixels = tuple(
            max(1, round(EDGE_PIXELS * size * step / longest_mm))
            for size, step in zip(grey.shape, across, strict=True)
        )
        tile = _grey(grey, window, pixels)
        if labels is not None:
            _outline(tile, _displayed(labels, axis, centre[axis]), pixels, task)
        top = (EDGE_PIXELS - pixels[0]) // 2
        left = axis * EDGE_PIXELS + (EDGE_PIXELS - pixels[1]) // 2
        sheet[top : top + pixels[0], left : left + pixels[1]] = tile
    buffer = io.BytesIO()
    Pillow.fromarray(sheet).save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def _centre(labels: LabelMap | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the slice per axis that holds most of the label, else the middle one."""
    if labels is None or not labels.any():
        return tuple(size // 2 for size in shape)
    mask = labels > 0
    return tuple(int(np.count_nonzero(mask, axis=axes).argmax()) for axes in OTHER_AXES)


def _occupied(volume: NDArray[Any]) -> tuple[slice, ...]:
    """Return the box around all voxels that are not zero, with a margin; else everything."""
    mask = volume != 0
    box = []
    for axes in OTHER_AXES:
        used = np.flatnonzero(mask.any(axis=axes))
        first, last = (used[0], used[-1]) if used.size else (0, mask.size)
        box.append(slice(max(0, int(first) - MARGIN_VOXELS), int(last) + 1 + MARGIN_VOXELS))
    return tuple(box)


def _displayed(volume: NDArray[Any], axis: int, place: int) -> NDArray[Any]:
    """Return one plane with anterior or superior up, and the right or the front on the left."""
    plane: NDArray[Any] = np.moveaxis(volume, axis, 0)[place, ::-1, ::-1]
    return plane


def _window(channel: NDArray[np.float32]) -> tuple[float, float]:
    sample = channel[::2, ::2, ::2]
    inside = sample[sample != 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(inside, WINDOW_PERCENT))
    return low, high if high > low else low + max(1.0, abs(low))  # nothing to see, all dark


def _grey(
    plane: NDArray[Any], window: tuple[float, float], pixels: tuple[int, ...]
) -> NDArray[np.uint8]:
    low, high = window
    shade = np.clip((plane.astype(np.float64) - low) / (high - low), 0, 1)
    resized = _resized((255 * shade).astype(np.uint8), pixels, Pillow.Resampling.BILINEAR)
    return np.repeat(resized[..., None], 3, axis=2)


def _outline(
    tile: NDArray[np.uint8], plane: NDArray[Any], pixels: tuple[int, ...], task: Task
) -> None:
    """Draw the inner border of every label into a tile."""
    labels = _resized(plane.astype(np.uint8), pixels, Pillow.Resampling.NEAREST)
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    border = np.zeros(labels.shape, np.bool_)
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        border |= neighbour != inner
    for index, label in enumerate(task.foreground_labels):
        colour = mpl.colors.to_rgb(COLOURS[index % len(COLOURS)])
        tile[border & (inner == label)] = [round(255 * part) for part in colour]


def _resized(
    plane: NDArray[np.uint8], pixels: tuple[int, ...], how: Pillow.Resampling
) -> NDArray[np.uint8]:
    height, width = pixels
    picture = Pillow.fromarray(np.ascontiguousarray(plane)).resize((width, height), how)
    return np.asarray(picture)
