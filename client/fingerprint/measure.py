"""Measure a site's data: one case at a time, folded into counts that may leave the site."""

from collections.abc import Callable, Iterator, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from client.dataset.nifti import Scan, read_labels, read_scan, same_grid
from client.preparation.preprocess import nonzero_box
from common.axes import three
from common.case import Case, DatasetDescription
from common.errors import DataError, Defect
from common.planning.fingerprint import Fingerprint, empty, fingerprint_of, merge
from common.planning.intensity import FOREGROUND_STEP, ct_channels
from common.task import Task

Box = tuple[slice, slice, slice]
Progress = Callable[[int, int], None]


def measure(
    description: DatasetDescription, task: Task, progress: Progress | None = None
) -> Fingerprint:
    """Return the fingerprint of a site's cases; no more than one case is in memory.

    Label files are opened only for a task with a CT channel, whose foreground is sampled.

    Args:
        description: the cases to measure; none gives the empty fingerprint.
        task: its channels say what the images hold.
        progress: called after each case with (done, all).

    Raises:
        DataError: for a case that cannot be read or measured.
    """
    return reduce(merge, _one_by_one(description.cases, task, progress), empty(task))


def _one_by_one(
    cases: Sequence[Case], task: Task, progress: Progress | None
) -> Iterator[Fingerprint]:
    for done, case in enumerate(cases, start=1):
        yield _measured(case, task)
        if progress:
            progress(done, len(cases))


def _measured(case: Case, task: Task) -> Fingerprint:
    scan = read_scan(case, len(task.channels))
    box = nonzero_box(scan.image)
    foreground = _ct_foreground(case, scan, box, task) if ct_channels(task.channels) else None
    before, after = scan.image.shape[1:], scan.image[(0, *box)].shape
    try:
        return fingerprint_of(three(before), three(after), scan.spacing_mm, foreground, task)
    except DataError as error:
        raise _unfit(case, str(case.images[0]), "a measurable image", str(error)) from None


def _ct_foreground(case: Case, scan: Scan, box: Box, task: Task) -> dict[str, NDArray[np.floating]]:
    """Return every tenth voxel with a label per CT channel, in the order of the array."""
    if case.label is None:
        raise _unfit(case, "label", "a reference segmentation: CT needs its foreground", "none")
    labels, grid = read_labels(case.label, task.label_mapping)
    if difference := same_grid(scan.grid, grid):
        raise _unfit(case, str(case.label), "the grid of the image", difference)
    labelled = labels[box] > 0
    return {
        name: scan.image[(channel, *box)][labelled][::FOREGROUND_STEP]
        for channel, name in enumerate(task.channels)
        if ct_channels((name,))
    }


def _unfit(case: Case, file: str, expected: str, found: str) -> DataError:
    return DataError("The data cannot be measured:", [Defect(case.name, file, expected, found)])
