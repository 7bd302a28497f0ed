"""What the page draws, as small NIfTI files in the image's own grid.

Every file is read and checked as everywhere else, then written again: what the viewer shows lies
where Consilium believes it to lie, also where a header says nothing of orientation.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.dataset.nifti import Grid, encoded, read_channels, read_grid, read_labels, same_grid
from client.scoring.appearance import window_of
from client.viewer.listing import ListedCase
from client.viewer.places import part_of
from common.axes import LabelMap, Mask, Shape, SpacingMm, three
from common.errors import DataError, Defect
from common.task import Task

THICK_RATIO = 3  # nnU-Net, ANISO_THRESHOLD: from there on an axis is not compared with the others
MISSED, FALSE_ALARM, OTHER_LABEL = 1, 2, 3
"""How they can disagree: only the reference, only the prediction, or both with unlike labels."""


@dataclass(frozen=True, eq=False)
class Labels:
    """The label files of one case, each None where there is none or it cannot be used."""

    grid: Grid
    """Of the image."""
    reference: LabelMap | None
    prediction: LabelMap | None
    faults: tuple[str, ...]
    """Why a file cannot be used, in words."""


@dataclass(frozen=True)
class Mark:
    """What the label files say of a voxel."""

    reference: int
    prediction: int
    is_border: bool
    """Whether the outline of the reference runs there."""


@dataclass(frozen=True, eq=False)
class Marks:
    """Both label maps of a case in one volume; the page colours it in every way that it offers."""

    volume: NDArray[Any]
    """Numbers of marks, axes (z, y, x)."""
    table: tuple[Mark, ...]
    """Every mark of the case by its number; number 0 is a voxel without any label."""


def read_case_labels(one: ListedCase, task: Task) -> Labels:
    """Read the reference and the prediction of a case.

    Raises:
        DataError: when the header of the image cannot be read.
    """
    grid = read_grid(one.case.images[0])
    maps: list[LabelMap | None] = []
    faults = []
    for path in (one.case.label, one.prediction):
        try:
            labels, own = read_labels(path, task.label_mapping) if path else (None, grid)
        except DataError as error:
            labels, own = None, grid
            faults += [str(defect) for defect in error.defects]
        if difference := same_grid(grid, own):
            labels, expected = None, f"the grid of {one.case.images[0].name}"
            faults.append(str(Defect(one.case.name, str(path), expected, difference)))
        maps.append(labels)
    return Labels(grid, maps[0], maps[1], tuple(faults))


def image_file(one: ListedCase, channel: int, task: Task) -> bytes:
    """Return one channel without its empty border; its header holds the window for showing it.

    What a label file marks stays, also outside the head. A head takes about a third of a BraTS
    image; without a graphics card, what is drawn decides how long a person waits.

    Raises:
        DataError: when the file cannot be read, or does not hold the channel.
    """
    n_channels = len(task.channels)
    alone = len(one.case.images) == n_channels
    path = one.case.images[channel if alone else 0]
    image, grid = read_channels(path)
    if len(image) != (1 if alone else n_channels):
        expected = "one channel" if alone else f"{n_channels} channels"
        raise DataError("", [Defect(one.case.name, str(path), expected, str(len(image)))])
    shown = np.nan_to_num(image[0 if alone else channel], copy=False)  # a page cannot draw NaN
    labels = read_case_labels(one, task)
    used = shown != 0
    for volume in (labels.reference, labels.prediction):
        if volume is not None and volume.shape == used.shape:
            used |= volume > 0
    first, last = ends_of(used)
    box = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    return encoded(shown[box], part_of(grid, first, last), None, window_of(shown[box]))


def ends_of(mask: Mask) -> tuple[Shape, Shape]:
    """Return the lowest and the highest index (z, y, x) of a mask; of all of it where it is empty.

    Args:
        mask: axes (z, y, x).
    """
    if not mask.any():
        return (0, 0, 0), three(size - 1 for size in mask.shape)
    axes = (np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    lowest, highest = zip(*((int(used[0]), int(used[-1])) for used in axes), strict=True)
    return three(lowest), three(highest)


def outline_of(labels: LabelMap, spacing_mm: SpacingMm) -> Mask:
    """Return the labelled voxels that touch another label, along the axes that are not thick.

    Across thick slices neighbours differ so much that half of a slice would be outline.
    """
    border = np.zeros(labels.shape, np.bool_)
    for axis, size_mm in enumerate(spacing_mm):
        if size_mm >= THICK_RATIO * min(spacing_mm):
            continue
        one, other, found = (np.moveaxis(array, axis, 0) for array in (labels, labels, border))
        differs = one[1:] != other[:-1]
        found[1:] |= differs
        found[:-1] |= differs
    return border & (labels > 0)


def marks_of(labels: Labels) -> Marks:
    """Return both label maps of a case as one volume, in which every mark has a number."""
    none = np.zeros(labels.grid.shape_zyx, np.uint8)
    reference = none if labels.reference is None else labels.reference
    prediction = none if labels.prediction is None else labels.prediction
    border = outline_of(reference, labels.grid.spacing_mm)
    seen = np.zeros(2**17, np.bool_)
    seen[0] = True  # nothing, even where the whole image is labelled
    volume = np.empty(reference.shape, np.uint32)
    for plane, *parts in zip(volume, reference, prediction, border, strict=True):
        plane[:] = _packed(*parts)
        seen[plane] = True
    packed = np.flatnonzero(seen)
    numbers = np.zeros(seen.size, np.uint32)
    numbers[packed] = np.arange(packed.size)
    for plane in volume:  # by planes, because an index takes eight bytes per voxel
        plane[:] = numbers[plane]
    table = tuple(Mark(code >> 9, code >> 1 & 255, bool(code & 1)) for code in packed.tolist())
    return Marks(volume.astype(np.uint8 if packed.size <= 256 else np.uint16), table)


def difference(mark: Mark, members: tuple[int, ...] | None) -> int:
    """Return how reference and prediction disagree, or 0 where they agree.

    Args:
        mark: what both say of a voxel.
        members: labels of the region that is compared; None compares every label.
    """
    true, found = (
        label > 0 if members is None else label in members
        for label in (mark.reference, mark.prediction)
    )
    if true != found:
        return MISSED if true else FALSE_ALARM
    return OTHER_LABEL if members is None and mark.reference != mark.prediction else 0


def focus_of(labels: Labels) -> Shape:
    """Return the voxel (z, y, x) to look at first.

    It lies in the axial slice with most disagreement, or else most reference, or else most
    prediction, near the centre of what is there; without any, in the middle of the image.
    """
    reference, prediction = labels.reference, labels.prediction
    volumes = [volume for volume in (reference, prediction) if volume is not None]
    if reference is not None and prediction is not None:
        volumes.insert(0, (reference != prediction).view(np.uint8))
    for volume in volumes:
        areas = np.count_nonzero(volume, axis=(1, 2))
        if areas.any():
            z = int(areas.argmax())
            inside = np.argwhere(volume[z])
            distances = np.square(inside - inside.mean(axis=0)).sum(axis=1)
            y, x = inside[int(distances.argmin())].tolist()
            return z, y, x
    return three(size // 2 for size in labels.grid.shape_zyx)


def _packed(
    reference: NDArray[np.uint8], prediction: NDArray[np.uint8], border: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    packed = reference.astype(np.uint32)
    packed <<= 9
    packed |= prediction.astype(np.uint32) << 1
    packed |= border
    return packed
