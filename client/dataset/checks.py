"""Everything that can be wrong with one case, found by reading each of its files once.

A defect keeps a case from being used. A suspicion is about data that can be used, but that a
person should look at: it says what was seen and what to do. Nothing here leaves the site.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from client.dataset.inflate import checksum
from client.dataset.names import person_in
from client.dataset.nifti import Grid, read_channels, read_labels, same_grid
from client.dataset.notes import Notes, doubt_of, read_notes
from client.dataset.orientation import Signature, signature
from common.axes import Image, LabelMap, Shape, SpacingMm
from common.case import Case
from common.errors import DataError, Defect
from common.task import Task

MAX_SPACING_MM = 100.0  # no slice of a body is that thick; larger values are a broken header
MIN_SPACING_MM = 0.02  # no clinical scanner resolves that; a head stored in metres has 0.001
DICOM_EXTENSION = 2  # NIfTI-1 standard, ecode of a header extension

_Fault: TypeAlias = tuple[str, str]
"""What was expected and what was found."""


@dataclass(frozen=True)
class Suspicion:
    """One thing that somebody should look at. Stays at the site: it may name a person."""

    case: str
    file: str
    found: str
    advice: str

    def __str__(self) -> str:
        """Return the one-line form that a person reads."""
        return f"{self.case}: {self.file}: {self.found}; {self.advice}"


@dataclass(frozen=True)
class CaseFacts:
    """What one readable case holds."""

    name: str
    shape: Shape
    spacing_mm: SpacingMm
    labels: tuple[int, ...] | None
    """Label values present, ascending and after the task's mapping; None without a label file."""
    axis_codes: str = "RAS"
    """Where the axes of the first file point to; every image is read as RAS."""
    label_ml: dict[int, float] | None = None
    """Volume of each foreground label present; None without a label file."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one case contributes to comparing all of them."""

    checksums: tuple[tuple[str, int], ...]
    """File and checksum per channel; an image without contrast has none."""
    texts: tuple[tuple[str, str, str], ...]
    """File, field of the header and what in it seems to name somebody."""
    signature: Signature | None
    """None when the first channel cannot be read."""


@dataclass(frozen=True, eq=False)
class Examined:
    """All that was found in one case."""

    case: Case
    facts: CaseFacts | None
    """None when no image can be read."""
    defects: tuple[Defect, ...]
    suspicions: tuple[Suspicion, ...]
    evidence: Evidence
    pictures: dict[str, bytes]
    """By channel that can be read, if wanted: three planes side by side, as WebP."""


@dataclass(frozen=True, eq=False)
class _Labels:
    """What a readable label file holds."""

    path: Path
    voxels: LabelMap
    grid: Grid
    counts: dict[int, int]
    """Voxels per value present, background included."""


class _Findings:
    """What is wrong with one case, collected file by file."""

    def __init__(self, case: Case) -> None:
        """Start without any."""
        self.case = case
        self.defects: list[Defect] = []
        self.suspicions: list[Suspicion] = []
        self.texts: list[tuple[str, str, str]] = []
        self.checksums: list[tuple[str, int]] = []

    def defect(self, path: Path, fault: _Fault) -> None:
        """Add a defect of one file."""
        self.defects.append(Defect(self.case.name, str(path), *fault))

    def unreadable(self, error: DataError) -> None:
        """Add the defects of a reader that knows only the file."""
        self.defects += [replace(defect, case=self.case.name) for defect in error.defects]

    def suspicion(self, path: Path, found: str, advice: str) -> None:
        """Add a suspicion about one file."""
        self.suspicions.append(Suspicion(self.case.name, str(path), found, advice))

    def notes(self, path: Path, notes: Notes) -> None:
        """Add what a header says about orientation and, perhaps, about the patient."""
        if doubt := doubt_of(notes):
            self.suspicion(path, doubt, "compare left and right with the scanner's images")
        if DICOM_EXTENSION in notes.extensions:
            self.texts.append((str(path), "extension", "a DICOM header"))
        for field, text in notes.texts.items():
            if person := person_in(text):
                self.texts.append((str(path), field, person))


def examine(case: Case, task: Task, *, pictures: bool = False) -> Examined:
    """Read every file of a case once and check it; nothing is raised for bad data.

    Args:
        case: a complete one, as `client.dataset.layouts` finds it.
        task: its channels and labels are what is expected.
        pictures: whether to draw three planes of every channel.

    Returns:
        Defects in the order of the files, the label last. At most the label and one image file
        are in memory at one time.
    """
    of_label, found = _Findings(case), _Findings(case)
    labels = _examine_label(case, task, of_label)
    grids: list[tuple[Path, Grid]] = []
    drawn: dict[str, bytes] = {}
    first: Signature | None = None
    groups = [(name,) for name in task.channels] if len(case.images) > 1 else [task.channels]
    for path, channels in zip(case.images, groups, strict=True):
        if (opened := _examine_image(path, channels, found)) is None:
            continue
        image, grid = opened
        if not grids and path == case.images[0]:
            first = signature(image)
        grids.append((path, grid))
        if pictures:
            drawn |= _draw(image, grid, channels, labels, task)
    facts = _facts(case, grids, labels)
    if labels:
        grids.append((labels.path, labels.grid))
    found.defects += of_label.defects + _grid_defects(case, grids if facts else [])
    evidence = Evidence(tuple(found.checksums), tuple(found.texts + of_label.texts), first)
    suspicions = tuple(found.suspicions + of_label.suspicions)
    return Examined(case, facts, tuple(found.defects), suspicions, evidence, drawn)


def _examine_image(
    path: Path, channels: Sequence[str], found: _Findings
) -> tuple[Image, Grid] | None:
    """Check one image file; None when it cannot be read."""
    try:
        image, grid = read_channels(path)
        notes = read_notes(path)
    except DataError as error:
        found.unreadable(error)
        return None
    for fault in (*_shape_faults(image, channels), *_spacing_faults(grid)):
        found.defect(path, fault)
    for name, voxels in zip(channels, image, strict=False):  # their number is checked above
        if of_voxels := _voxel_fault(name, voxels):
            found.defect(path, of_voxels)
        else:
            file = str(path) if len(channels) == 1 else f"{path} (channel {name})"
            found.checksums.append((file, checksum(memoryview(voxels).cast("B"))))
    found.notes(path, notes)
    return image, grid


def _examine_label(case: Case, task: Task, found: _Findings) -> _Labels | None:
    """Check the label file; None when there is none or it cannot be read."""
    if (path := case.label) is None:
        return None
    try:
        voxels, grid = read_labels(path, task.label_mapping)
        notes = read_notes(path)
    except DataError as error:
        found.unreadable(error)
        return None
    counts = _counts(voxels)
    if unknown := sorted(set(counts) - set(task.labels.values())):
        expected = f"only labels of task {task.name} ({_listed(sorted(task.accepted_values))})"
        found.defect(path, (expected, _listed(unknown)))
    if not any(counts.keys()):
        found.suspicion(
            path,
            "a label without foreground",
            "right for a healthy patient, otherwise the segmentation is missing",
        )
    found.notes(path, notes)
    return _Labels(path, voxels, grid, counts)


def _counts(voxels: LabelMap) -> dict[int, int]:
    """Return the number of voxels per value present; most voxels are background."""
    counts = np.bincount(voxels[voxels > 0], minlength=256)
    counts[0] = voxels.size - counts.sum()
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _facts(
    case: Case, grids: Sequence[tuple[Path, Grid]], labels: _Labels | None
) -> CaseFacts | None:
    if not grids:
        return None
    _, grid = grids[0]
    present = millilitres = None
    if labels:
        voxel_ml = float(np.prod(labels.grid.spacing_mm)) / 1000
        present = tuple(labels.counts)
        millilitres = {value: n * voxel_ml for value, n in labels.counts.items() if value}
    return CaseFacts(
        case.name, grid.shape_zyx, grid.spacing_mm, present, grid.axis_codes, millilitres
    )


def _grid_defects(case: Case, grids: Sequence[tuple[Path, Grid]]) -> list[Defect]:
    """Compare every grid with that of the first image that can be read."""
    defects = []
    for path, grid in grids[1:]:
        first, reference = grids[0]
        if difference := same_grid(reference, grid):
            expected = f"the grid of {first.name}"
            defects.append(Defect(case.name, str(path), expected, difference))
    return defects


def _draw(
    image: Image, grid: Grid, channels: Sequence[str], labels: _Labels | None, task: Task
) -> dict[str, bytes]:
    """Return one picture per channel, outlined where the label has the image's shape."""
    from client.dataset.thumbnails import (
        draw_planes,  # pictures are wanted rarely, and cost an import
    )

    fits = labels is not None and labels.voxels.shape == image.shape[1:]
    outline = labels.voxels if labels is not None and fits else None
    return {
        name: draw_planes(voxels, outline, task, spacing_mm=grid.spacing_mm)
        for name, voxels in zip(channels, image, strict=False)  # their number is a defect
    }


def _shape_faults(image: Image, channels: Sequence[str]) -> Iterator[_Fault]:
    if len(image) != len(channels):
        wanted = "a 3-D image" if len(channels) == 1 else f"a 4-D image of {len(channels)} channels"
        found = "a 3-D image" if len(image) == 1 else f"a 4-D image of {len(image)} channels"
        yield wanted, found


def _voxel_fault(name: str, voxels: Image) -> _Fault | None:
    """Return what is wrong with a channel: voxels that are no number, or no contrast at all."""
    low, high = float(voxels.min()), float(voxels.max())  # NaN wins in both
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = voxels.size - np.count_nonzero(np.isfinite(voxels))
        found = f"{broken} of {voxels.size} voxels NaN or infinite"
        return f"finite intensities in channel {name}", found
    if low == high:
        return f"an image in channel {name}", f"{low:g} in every voxel"
    return None


def _spacing_faults(grid: Grid) -> Iterator[_Fault]:
    found = " x ".join(f"{size:g}" for size in grid.spacing_mm)
    if max(grid.spacing_mm) > MAX_SPACING_MM:
        yield f"voxels of at most {MAX_SPACING_MM:g} mm", f"{found} mm (z, y, x)"
    elif min(grid.spacing_mm) < MIN_SPACING_MM:
        expected = f"voxels of at least {MIN_SPACING_MM:g} mm"
        yield expected, f"{found} mm (z, y, x), which look like metres"


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
