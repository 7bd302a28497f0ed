import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client.dataset.nifti import grid_of, write_image, write_labels
from client.fingerprint.measure import measure
from common.axes import SpacingMm
from common.case import Case, DatasetDescription
from common.errors import DataError
from common.planning.fingerprint import empty
from common.planning.intensity import CtStatistics
from common.task import Task

SPACING: SpacingMm = (3.0, 1.0, 0.5)


def task_of(*channels: str) -> Task:
    return Task(
        name="any",
        version=1,
        channels=channels,
        labels={"background": 0, "a": 1},
        regions={"a": (1,)},
    )


def written(
    folder: Path, name: str, channels: list[NDArray[np.float32]], labels: NDArray[np.uint8] | None
) -> Case:
    grid = grid_of(SPACING, channels[0].shape)  # type: ignore[arg-type]
    images = []
    for number, voxels in enumerate(channels):
        images.append(folder / f"{name}_{number}.nii.gz")
        write_image(images[-1], voxels, grid)
    if labels is None:
        return Case(name=name, images=tuple(images), label=None)
    write_labels(folder / f"{name}_label.nii.gz", labels, grid)
    return Case(name=name, images=tuple(images), label=folder / f"{name}_label.nii.gz")


def block(value: float = 5.0) -> NDArray[np.float32]:
    """Return an image of 10 x 12 x 14 with a block of 4 x 6 x 8 that is not zero."""
    image = np.zeros((10, 12, 14), np.float32)
    image[2:6, 3:9, 4:12] = value
    return image


def described(folder: Path, *cases: Case) -> DatasetDescription:
    return DatasetDescription(folder=folder, layout="nnunet", cases=cases)


def test_shapes_are_those_of_the_crop_and_spacings_those_of_the_file(tmp_path: Path) -> None:
    case = written(tmp_path, "one", [block()], None)
    found = measure(described(tmp_path, case), task_of("MRI"))
    assert found.shapes_voxels == ({4: 1}, {6: 1}, {8: 1})
    assert found.spacings_ticks == ({30000: 1}, {10000: 1}, {5000: 1})
    assert found.extents_ticks == ({120000: 1}, {60000: 1}, {40000: 1})
    assert (found.n_cases, found.n_cropped) == (1, 1)


def test_cases_add_up(tmp_path: Path) -> None:
    cropped = written(tmp_path, "cropped", [block()], None)
    whole = written(tmp_path, "whole", [np.full((10, 6, 14), 3, np.float32)], None)
    found = measure(described(tmp_path, cropped, whole), task_of("MRI"))
    assert found.shapes_voxels == ({4: 1, 10: 1}, {6: 2}, {8: 1, 14: 1})
    assert (found.n_cases, found.n_cropped) == (2, 1)


def test_labels_of_an_mri_task_are_never_opened(tmp_path: Path) -> None:
    case = written(tmp_path, "one", [block()], None)
    unreadable = Case(name="one", images=case.images, label=tmp_path / "absent.nii.gz")
    found = measure(described(tmp_path, unreadable), task_of("MRI"))
    assert (found.n_cases, found.ct) == (1, {})


def test_every_tenth_foreground_voxel_of_the_ct_channel_is_counted(tmp_path: Path) -> None:
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[2:5, 3:9, 4] = 1  # 18 voxels: numbers 0 and 10 are sampled
    hu = block(-7.0)
    hu[3, 7, 4] = 40.0  # number 10: row 4 of the second slice
    case = written(tmp_path, "one", [block(), hu], labels)
    found = measure(described(tmp_path, case), task_of("MRI", "CT"))
    assert found.ct == {
        "CT": CtStatistics(
            n_voxels=2, total_hu=33, total_squared_hu2=1649, histogram_hu={-7: 1, 40: 1}
        )
    }


def test_no_cases_give_the_empty_fingerprint(tmp_path: Path) -> None:
    assert measure(described(tmp_path), task_of("MRI")) == empty(task_of("MRI"))


def test_ct_without_a_reference_is_refused_by_name(tmp_path: Path) -> None:
    case = written(tmp_path, "one", [block()], None)
    with pytest.raises(DataError) as caught:
        measure(described(tmp_path, case), task_of("CT"))
    assert [(defect.case, defect.found) for defect in caught.value.defects] == [("one", "none")]


def test_ct_with_labels_on_another_grid_is_refused(tmp_path: Path) -> None:
    case = written(tmp_path, "one", [block()], None)
    other = tmp_path / "other.nii.gz"
    write_labels(other, np.ones((10, 12, 15), np.uint8), grid_of(SPACING, (10, 12, 15)))
    moved = Case(name="one", images=case.images, label=other)
    with pytest.raises(DataError, match="expected the grid of the image"):
        measure(described(tmp_path, moved), task_of("CT"))


def test_a_spacing_below_the_grid_names_the_case(tmp_path: Path) -> None:
    path = tmp_path / "tiny.nii.gz"
    write_image(path, block(), grid_of((1.0, 1.0, 2e-5), (10, 12, 14)))
    case = Case(name="tiny", images=(path,), label=None)
    with pytest.raises(DataError) as caught:
        measure(described(tmp_path, case), task_of("MRI"))
    assert caught.value.defects[0].case == "tiny"


def test_progress_is_told_after_each_case(tmp_path: Path) -> None:
    cases = [written(tmp_path, name, [block()], None) for name in ("one", "two", "three")]
    told: list[tuple[int, int]] = []
    measure(described(tmp_path, *cases), task_of("MRI"), lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


# Memory: a hospital measures thousands of scans on the machine that it has


def peak_bytes(folder: Path, case: Case, n_cases: int, task: Task) -> int:
    tracemalloc.start()
    try:
        measure(described(folder, *[case] * n_cases), task)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def large(folder: Path, n_channels: int) -> Case:
    rng = np.random.default_rng(4)
    channels = [rng.normal(size=(40, 48, 56)).astype(np.float32) for _ in range(n_channels)]
    return written(folder, "large", channels, np.ones((40, 48, 56), np.uint8))


def test_thirty_cases_need_less_memory_than_three(tmp_path: Path) -> None:
    case_bytes = 4 * 4 * 40 * 48 * 56  # four channels of float32
    peak = peak_bytes(tmp_path, large(tmp_path, 4), 30, task_of("t1", "t1ce", "t2", "flair"))
    assert case_bytes < peak < 3 * case_bytes


def test_a_second_ct_scan_with_its_labels_needs_no_memory_of_its_own(tmp_path: Path) -> None:
    case, task = large(tmp_path, 1), task_of("CT")
    one = peak_bytes(tmp_path, case, 1, task)
    assert peak_bytes(tmp_path, case, 10, task) < one + 4 * 40 * 48 * 56 / 2  # half a scan
