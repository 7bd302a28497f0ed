"""Telling a hospital everything that is wrong with its folder, in one run.

Nothing here leaves the site: facts and defects name cases and files.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from client.layouts import find_cases
from client.nifti import Grid, read_channels, read_labels, same_grid
from common.axes import Image, Shape, SpacingMm
from common.case import Case, DatasetDescription
from common.errors import DataError, Defect
from common.task import Task

MAX_SPACING_MM = 100.0  # no slice of a body is that thick; larger values are a broken header

_Fault: TypeAlias = tuple[str, str]
"""What was expected and what was found."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


@dataclass(frozen=True)
class CaseFacts:
    """What one readable case holds."""

    name: str
    shape: Shape
    spacing_mm: SpacingMm
    labels: tuple[int, ...] | None
    """Label values present, ascending and after the task's mapping; None without a label file."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a data set."""

    n_cases: int
    """Cases that have all their files, sound or not."""
    defects: tuple[Defect, ...]
    """First what is missing, then what the files of each case hold; empty for a sound data set."""
    cases: tuple[CaseFacts, ...]
    """One entry per case with a readable image, sorted by name."""


def inspect_folder(
    folder: Path,
    task: Task,
    only: Collection[str] | None = None,
    *,
    labels_required: bool = True,
    progress: Progress | None = None,
) -> Inspection:
    """Find the cases of a folder and open every file of those that are complete.

    Args:
        folder: a data set in any layout of `client.layouts`.
        task: its channels and labels are what is expected.
        only: names of the cases that are wanted; None means all.
        labels_required: whether a case without a reference segmentation is a defect.
        progress: called after each case.

    Returns:
        The defects of the layout and of the voxels together; nothing is raised for bad data.
    """
    findings = find_cases(folder, task, only, labels_required=labels_required)
    opened = _inspect_cases(findings.cases, task, progress)
    return replace(opened, defects=findings.defects + opened.defects)


def inspect(
    description: DatasetDescription, task: Task, progress: Progress | None = None
) -> Inspection:
    """Open every file of every case and list all defects."""
    return _inspect_cases(description.cases, task, progress)


def check(description: DatasetDescription, task: Task, progress: Progress | None = None) -> None:
    """Demand sound data.

    Raises:
        DataError: with every defect of every case.
    """
    if defects := inspect(description, task, progress).defects:
        raise DataError(f"{description.folder}: the data set has defects", defects)


def _inspect_cases(cases: Sequence[Case], task: Task, progress: Progress | None) -> Inspection:
    facts: list[CaseFacts] = []
    defects: list[Defect] = []
    for done, case in enumerate(cases, start=1):
        fact, faults = _inspect_case(case, task)
        facts += [fact] if fact else []
        defects += faults
        if progress:
            progress(done, len(cases))
    return Inspection(len(cases), tuple(defects), tuple(facts))


def _inspect_case(case: Case, task: Task) -> tuple[CaseFacts | None, list[Defect]]:
    """Return what the case holds, None when no image can be read, and its defects."""
    grids, defects = _inspect_images(case, task)
    n_images = len(grids)
    labels = None
    if case.label is not None:
        try:
            label_map, grid = read_labels(case.label, task.label_mapping)
        except DataError as error:
            defects += _of_case(case, error)
        else:
            labels = tuple(np.flatnonzero(np.bincount(label_map.ravel())).tolist())
            defects += _label_defects(case, case.label, labels, task)
            grids.append((case.label, grid))
    if not n_images:
        return None, defects
    first, reference = grids[0]
    for path, grid in grids[1:]:
        if difference := same_grid(reference, grid):
            expected = f"the grid of {first.name}"
            defects.append(Defect(case.name, str(path), expected, difference))
    return CaseFacts(case.name, reference.shape_zyx, reference.spacing_mm, labels), defects


def _inspect_images(case: Case, task: Task) -> tuple[list[tuple[Path, Grid]], list[Defect]]:
    """Return the grid of every image file that can be read, and the defects of all."""
    grids: list[tuple[Path, Grid]] = []
    defects: list[Defect] = []
    groups = [(name,) for name in task.channels] if len(case.images) > 1 else [task.channels]
    for path, channels in zip(case.images, groups, strict=True):
        try:
            image, grid = read_channels(path)
        except DataError as error:
            defects += _of_case(case, error)
        else:
            faults = [*_shape_faults(image, channels), *_voxel_faults(image, channels)]
            faults += _spacing_faults(grid)
            defects += [Defect(case.name, str(path), *fault) for fault in faults]
            grids.append((path, grid))
    return grids, defects


def _shape_faults(image: Image, channels: Sequence[str]) -> Iterator[_Fault]:
    if len(image) != len(channels):
        wanted = "a 3-D image" if len(channels) == 1 else f"a 4-D image of {len(channels)} channels"
        found = "a 3-D image" if len(image) == 1 else f"a 4-D image of {len(image)} channels"
        yield wanted, found


def _voxel_faults(image: Image, channels: Sequence[str]) -> Iterator[_Fault]:
    """Yield channels with voxels that are no number, and channels without any contrast."""
    for name, voxels in zip(channels, image, strict=False):  # their number is checked elsewhere
        broken = voxels.size - np.count_nonzero(np.isfinite(voxels))
        if broken:
            found = f"{broken} of {voxels.size} voxels NaN or infinite"
            yield f"finite intensities in channel {name}", found
        elif voxels.min() == voxels.max():
            yield f"an image in channel {name}", f"{voxels.min():g} in every voxel"


def _spacing_faults(grid: Grid) -> Iterator[_Fault]:
    if max(grid.spacing_mm) > MAX_SPACING_MM:
        found = " x ".join(f"{size:g}" for size in grid.spacing_mm)
        yield f"voxels of at most {MAX_SPACING_MM:g} mm", f"{found} mm (z, y, x)"


def _label_defects(case: Case, path: Path, labels: Sequence[int], task: Task) -> list[Defect]:
    unknown = sorted(set(labels) - set(task.labels.values()))
    if not unknown:
        return []
    expected = f"only labels of task {task.name} ({_listed(sorted(task.accepted_values))})"
    return [Defect(case.name, str(path), expected, _listed(unknown))]


def _of_case(case: Case, error: DataError) -> list[Defect]:
    """Name the case in defects of a reader that knows only the file."""
    return [replace(defect, case=case.name) for defect in error.defects]


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
