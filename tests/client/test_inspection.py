"""Every mistake in a hospital's folder, on images of 5 x 6 x 7 voxels."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.inspection import CaseFacts, check, inspect, inspect_folder
from client.layouts import describe
from common.codec import encode
from common.errors import DataError
from common.task import load_task

BRATS = load_task("brats-2021")
BRATS_2013 = load_task("brats-2013")
HIPPOCAMPUS = load_task("hippocampus")
CHANNELS = ("t1", "t1ce", "t2", "flair")


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def intensities(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 10, shape or (5, 6, 7)).astype(np.float32)


def labels(*values: float) -> np.ndarray:
    stored = np.zeros((5, 6, 7), np.float32)
    stored[0, 0, : len(values)] = values
    return stored


def make_case(folder: Path, name: str) -> Path:
    """Write a sound BraTS case and return its folder."""
    for channel in CHANNELS:
        save(folder / name / f"{name}_{channel}.nii.gz", intensities())
    save(folder / name / f"{name}_seg.nii.gz", labels(1, 2, 4))
    return folder / name


def lines(folder: Path, task=BRATS, **options: bool) -> list[str]:
    found = inspect_folder(folder, task, **options)
    return [str(defect).replace(f"{folder}", "DATA") for defect in found.defects]


def test_sound_cases_have_facts_and_no_defects(tmp_path):
    make_case(tmp_path, "a")
    make_case(tmp_path, "b")
    found = inspect_folder(tmp_path, BRATS)
    assert (found.n_cases, found.defects) == (2, ())
    assert found.cases[0] == CaseFacts("a", (7, 6, 5), (1.0, 1.0, 1.0), (0, 1, 2, 4))


def test_an_inspection_can_be_printed_as_json(tmp_path):
    make_case(tmp_path, "a")
    assert encode(inspect_folder(tmp_path, BRATS)) == {
        "n_cases": 1,
        "defects": [],
        "cases": [
            {
                "name": "a",
                "shape": [7, 6, 5],
                "spacing_mm": [1.0, 1.0, 1.0],
                "labels": [0, 1, 2, 4],
            }
        ],
    }


def test_a_label_that_the_task_does_not_know_is_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels(1, 3, 7))
    assert lines(tmp_path) == [
        "a: DATA/a/a_seg.nii.gz: expected only labels of task brats-2021 (0, 1, 2, 4), found 3, 7"
    ]


def test_a_label_that_the_task_maps_to_another_is_sound(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels(1, 3, 4))
    assert inspect_folder(tmp_path, BRATS_2013).cases[0].labels == (0, 1, 4)
    assert lines(tmp_path, BRATS_2013) == []


def test_labels_that_are_not_whole_are_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels(1, 0.5))
    assert lines(tmp_path) == [
        "a: DATA/a/a_seg.nii.gz: expected whole numbers as labels, found other values in 1 voxels"
    ]


def test_an_image_and_a_label_of_different_shape_are_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", np.zeros((5, 6, 8), np.uint8))
    assert lines(tmp_path) == [
        (
            "a: DATA/a/a_seg.nii.gz: expected the grid of a_t1.nii.gz, "
            "found shape 5x6x8 instead of 5x6x7"
        )
    ]


def test_an_image_and_a_label_of_different_affine_are_a_defect(tmp_path):
    moved = np.eye(4)
    moved[2, 3] = 2.5
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels(1), moved)
    assert lines(tmp_path) == [
        (
            "a: DATA/a/a_seg.nii.gz: expected the grid of a_t1.nii.gz, "
            "found an affine that moves voxels by up to 2.5 mm"
        )
    ]


def test_channels_of_different_shape_are_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_t2.nii.gz", intensities(4, 6, 7))
    assert lines(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: expected the grid of a_t1.nii.gz, "
            "found shape 4x6x7 instead of 5x6x7"
        )
    ]


def test_voxels_that_are_no_number_are_a_defect(tmp_path):
    voxels = intensities()
    voxels[0, 0, :3] = (np.nan, np.inf, -np.inf)
    save(make_case(tmp_path, "a") / "a_t1ce.nii.gz", voxels)
    assert lines(tmp_path) == [
        (
            "a: DATA/a/a_t1ce.nii.gz: expected finite intensities in channel t1ce, "
            "found 3 of 210 voxels NaN or infinite"
        )
    ]


def test_an_image_without_content_is_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_flair.nii.gz", np.zeros((5, 6, 7), np.int16))
    assert lines(tmp_path) == [
        "a: DATA/a/a_flair.nii.gz: expected an image in channel flair, found 0 in every voxel"
    ]


def test_a_label_without_foreground_is_sound(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels())
    assert lines(tmp_path) == []


def test_a_file_cut_short_is_a_defect(tmp_path):
    path = make_case(tmp_path, "a") / "a_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert lines(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: expected a whole NIfTI file, "
            "found one that is cut short or damaged"
        )
    ]


def test_a_case_whose_images_cannot_be_read_has_no_facts_but_its_label_is_checked(tmp_path):
    save(tmp_path / "labelsTr" / "h.nii.gz", labels(9))
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "h.nii.gz").write_bytes(b"\x1f\x8b")
    found = inspect_folder(tmp_path, HIPPOCAMPUS)
    assert (found.n_cases, found.cases) == (1, ())
    assert [defect.found for defect in found.defects] == ["one that is cut short or damaged", "9"]


def test_a_file_with_several_channels_where_one_is_expected_is_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_t1.nii.gz", intensities(5, 6, 7, 2))
    assert lines(tmp_path) == [
        "a: DATA/a/a_t1.nii.gz: expected a 3-D image, found a 4-D image of 2 channels"
    ]


def test_one_channel_where_a_file_with_all_is_expected_is_a_defect(tmp_path):
    save(tmp_path / "imagesTr" / "a.nii.gz", intensities())
    save(tmp_path / "labelsTr" / "a.nii.gz", labels(1))
    assert lines(tmp_path) == [
        "a: DATA/imagesTr/a.nii.gz: expected a 4-D image of 4 channels, found a 3-D image"
    ]


def test_a_four_dimensional_file_with_all_channels_is_sound(tmp_path):
    save(tmp_path / "imagesTr" / "a.nii.gz", intensities(5, 6, 7, 4))
    save(tmp_path / "labelsTr" / "a.nii.gz", labels(1))
    assert lines(tmp_path) == []


def test_a_spacing_that_no_scanner_makes_is_a_defect(tmp_path):
    affine = np.diag([1.0, 1, 250, 1])
    save(tmp_path / "imagesTr" / "a.nii.gz", intensities(), affine)
    save(tmp_path / "labelsTr" / "a.nii.gz", labels(1), affine)
    assert lines(tmp_path, HIPPOCAMPUS) == [
        (
            "a: DATA/imagesTr/a.nii.gz: expected voxels of at most 100 mm, "
            "found 250 x 1 x 1 mm (z, y, x)"
        )
    ]


def test_all_defects_of_all_cases_come_in_one_run(tmp_path):
    a, b, c = (make_case(tmp_path, name) for name in "abc")
    make_case(tmp_path, "d")
    save(a / "a_seg.nii.gz", labels(3))
    save(a / "a_t1.nii.gz", np.zeros((5, 6, 7), np.int16))
    (b / "b_t2.nii.gz").unlink()
    (c / "c_flair.nii.gz").write_bytes(b"")
    save(c / "c_seg.nii.gz", np.zeros((5, 6, 7, 1), np.uint8))
    assert lines(tmp_path) == [
        (
            "b: DATA/b: expected one image for channel t2 (*_t2.nii.gz or *-t2w.nii.gz), "
            "found no such file"
        ),
        "a: DATA/a/a_t1.nii.gz: expected an image in channel t1, found 0 in every voxel",
        "a: DATA/a/a_seg.nii.gz: expected only labels of task brats-2021 (0, 1, 2, 4), found 3",
        "c: DATA/c/c_flair.nii.gz: expected a readable NIfTI file, found a fault: no NIfTI header",
        "c: DATA/c/c_seg.nii.gz: expected a 3-D image, found 4-D of shape 5x6x7x1",
    ]


def test_a_missing_folder_is_a_defect_and_not_an_exception(tmp_path):
    assert lines(tmp_path / "gone") == [
        "data set: DATA: expected a folder of cases, found no such folder"
    ]


def test_check_raises_with_every_defect_and_passes_sound_data(tmp_path):
    make_case(tmp_path, "a")
    check(describe(tmp_path, BRATS), BRATS)
    for name in "bc":
        save(make_case(tmp_path, name) / f"{name}_seg.nii.gz", labels(3))
    with pytest.raises(DataError) as caught:
        check(describe(tmp_path, BRATS), BRATS)
    expected = "expected only labels of task brats-2021 (0, 1, 2, 4), found 3"
    assert str(caught.value) == (
        f"{tmp_path}: the data set has defects\n"
        f"b: {tmp_path}/b/b_seg.nii.gz: {expected}\n"
        f"c: {tmp_path}/c/c_seg.nii.gz: {expected}"
    )


def test_progress_is_told_after_each_case(tmp_path):
    make_case(tmp_path, "a")
    make_case(tmp_path, "b")
    told: list[tuple[int, int]] = []
    inspect_folder(tmp_path, BRATS, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.real_data
def test_ten_real_hippocampus_cases_are_sound(shared):
    folder = shared / "data" / "Task04_Hippocampus"
    names = [case.name for case in describe(folder, HIPPOCAMPUS).cases[:10]]
    found = inspect(describe(folder, HIPPOCAMPUS, only=names), HIPPOCAMPUS)
    assert (found.n_cases, found.defects) == (10, ())
    assert found.cases[0] == CaseFacts("hippocampus_001", (35, 51, 35), (1, 1, 1), (0, 1, 2))
