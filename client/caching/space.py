"""How much disk a cache needs, known from the images' headers before anything is written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Final

from client.dataset.nifti import Grid, read_grid
from client.preparation.preprocess import FOREGROUND_FRACTION, FOREGROUND_VOXELS
from client.preparation.resample import resampled_shape
from common.axes import Shape, SpacingMm
from common.case import Case
from common.errors import DiskError
from common.planning.plan import AnyConfiguration, Configuration2d, Plan
from common.task import Task

GIB: Final = 2**30
EXPANSION: Final = 1.02  # noise does not shrink, and the codec adds headers: 1.003 measured
SMALL_FILES_BYTES: Final = 16_384  # an entry's record, and what a disk adds to each of its files
POSITION_BYTES: Final = 12  # three int32


def at_most_bytes(case: Case, task: Task, plan: Plan, configuration: AnyConfiguration) -> int:
    """Return what a case's entry takes at most: nothing cropped away, nothing compressed.

    Raises:
        DataError: when the header of its first image cannot be read.
    """
    n_voxels = prod(_network_shape(read_grid(case.images[0]), plan, configuration))
    needed = n_voxels * 4 * len(task.channels)
    if case.label is not None:
        rows = len(task.foreground_labels) * (FOREGROUND_VOXELS + 1)
        rows = min(n_voxels, rows + int(FOREGROUND_FRACTION * n_voxels))
        needed += n_voxels + POSITION_BYTES * rows
    return int(needed * EXPANSION) + SMALL_FILES_BYTES


def available_bytes(folder: Path, budget_bytes: int | None) -> int:
    """Return what may still be written below `folder`: free on its disk, and within the budget.

    Args:
        folder: of the cache; need not exist.
        budget_bytes: how large the whole folder may become; None stands for no limit.
    """
    free = _free_bytes(folder)
    return free if budget_bytes is None else min(free, budget_bytes - used_bytes(folder))


def used_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; 0 when there is none."""
    return sum(_sizes(folder))


def shortage(folder: Path, needs: str, budget_bytes: int | None) -> DiskError:
    """Return the error for a cache that does not fit; `needs` says in words how large it is."""
    left = f"{in_words(_free_bytes(folder))} free"
    if budget_bytes is not None:
        used = in_words(used_bytes(folder))
        left += f", budget {in_words(budget_bytes)}, {used} of it used"
    return DiskError(
        f"{folder}: the cache needs {needs}, {left}; expected a larger disk or a larger budget"
    )


def in_words(n_bytes: int | float) -> str:
    """Return a size in words, to one decimal."""
    return f"{n_bytes / GIB:.1f} GiB" if n_bytes >= GIB else f"{n_bytes / GIB * 1024:.1f} MiB"


def _network_shape(grid: Grid, plan: Plan, configuration: AnyConfiguration) -> Shape:
    """Return the shape of a whole image on the network's grid."""
    a, b, c = plan.transpose
    shape = (grid.shape_zyx[a], grid.shape_zyx[b], grid.shape_zyx[c])
    spacing_mm: SpacingMm = (grid.spacing_mm[a], grid.spacing_mm[b], grid.spacing_mm[c])
    if isinstance(configuration, Configuration2d):
        return resampled_shape(shape, spacing_mm, (spacing_mm[0], *configuration.spacing_mm))
    return resampled_shape(shape, spacing_mm, configuration.spacing_mm)


def _free_bytes(folder: Path) -> int:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # finished and renamed by another process
                yield Path(parent, name).lstat().st_size
