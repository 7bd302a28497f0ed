"""A case and a data set as they lie on a site's disk. None of this ever leaves the site."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["brats", "decathlon", "nnunet"]


@dataclass(frozen=True)
class Case:
    """One examination of one patient. The name may identify a person: it stays at the site."""

    name: str
    images: tuple[Path, ...]
    """One 3-D file per channel in the task's order, or one 4-D file that holds all channels."""
    label: Path | None
    """The reference segmentation, absent where only predictions are wanted."""


@dataclass(frozen=True)
class DatasetDescription:
    """What was found in a folder, sorted by case name."""

    folder: Path
    layout: Layout
    cases: tuple[Case, ...]
