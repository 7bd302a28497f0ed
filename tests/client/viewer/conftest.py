"""A small folder of cases with predictions, each of which shows one thing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from client.dataset.nifti import grid_of, write_image, write_labels

SPACING_MM = (3.0, 2.0, 1.0)
SHAPE = (4, 5, 9)


@dataclass(frozen=True)
class Folder:
    data: Path
    predictions: Path


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Write six cases in the BraTS layout.

    perfect; moved; false-alarm (no enhancing tumour in the reference); missing (no prediction);
    open (no reference); elsewhere (its prediction has another grid).
    """
    folder = tmp_path_factory.mktemp("viewer")
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2, 1:7] = [2, 2, 1, 1, 4, 4]
    without = np.where(labels == 4, 1, labels).astype(np.uint8)
    moved = np.roll(labels, 3, axis=2)
    for name, true, found in (
        ("elsewhere", labels, labels[:3]),
        ("false-alarm", without, labels),
        ("missing", labels, None),
        ("moved", labels, moved),
        ("open", None, labels),
        ("perfect", labels, labels),
    ):
        _write(folder, name, true, found)
    return Folder(folder / "data", folder / "predictions")


def _write(folder: Path, name: str, true: np.ndarray | None, found: np.ndarray | None) -> None:
    grid = grid_of(SPACING_MM, SHAPE)
    case = folder / "data" / name
    image = np.zeros(SHAPE, np.float32)
    image[1:, 1:4, 1:8] = 100
    for number, channel in enumerate(("t1", "t1ce", "t2", "flair"), start=1):
        write_image(case / f"{name}_{channel}.nii.gz", image * number, grid)
    if true is not None:
        write_labels(case / f"{name}_seg.nii.gz", true, grid)
    if found is not None:
        path = folder / "predictions" / f"{name}.nii.gz"
        write_labels(path, found, grid_of(SPACING_MM, found.shape))
