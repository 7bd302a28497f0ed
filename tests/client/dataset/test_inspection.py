"""Every mistake in a hospital's folder, on images of 5 x 6 x 7 voxels."""

import hashlib
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from client.dataset.inspection import CaseFacts, Inspection, check, inspect, inspect_folder
from client.dataset.layouts import describe
from common.codec import encode
from common.errors import DataError
from common.task import load_task

BRATS = load_task("brats-2021")
BRATS_2013 = load_task("brats-2013")
HIPPOCAMPUS = load_task("hippocampus")
CHANNELS = ("t1", "t1ce", "t2", "flair")


def save(
    path: Path, voxels: np.ndarray, affine: np.ndarray | None = None, **header: object
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine)
    for field, value in header.items():
        image.header[field] = value
    nib.save(image, path)


def intensities(*shape: int, seed: object = 0) -> np.ndarray:
    rng = np.random.default_rng(list(str(seed).encode()))  # every image is another one
    return rng.normal(100, 10, shape or (5, 6, 7)).astype(np.float32)


def labels(*values: float) -> np.ndarray:
    stored = np.zeros((5, 6, 7), np.float32)
    stored[0, 0, : len(values)] = values
    return stored


def make_case(folder: Path, name: str) -> Path:
    """Write a sound BraTS case and return its folder."""
    for channel in CHANNELS:
        voxels = intensities(seed=f"{name} {channel}")
        save(folder / name / f"{name}_{channel}.nii.gz", voxels)
    save(folder / name / f"{name}_seg.nii.gz", labels(1, 2, 4))
    return folder / name


def lines(folder: Path, task=BRATS, **options: bool) -> list[str]:
    found = inspect_folder(folder, task, **options)
    return [str(defect).replace(f"{folder}", "DATA") for defect in found.defects]


def warnings(folder: Path, task=BRATS, **options: object) -> list[str]:
    """Return the warnings of data without a defect."""
    found = inspect_folder(folder, task, **options)
    assert found.defects == ()
    return [str(warning).replace(f"{folder}", "DATA") for warning in found.warnings]


def test_sound_cases_have_facts_and_no_defects(tmp_path):
    make_case(tmp_path, "a")
    make_case(tmp_path, "b")
    found = inspect_folder(tmp_path, BRATS)
    assert (found.n_cases, found.defects) == (2, ())
    assert found.warnings == ()
    assert found.cases[0] == CaseFacts(
        "a", (7, 6, 5), (1.0, 1.0, 1.0), (0, 1, 2, 4), "RAS", {1: 0.001, 2: 0.001, 4: 0.001}
    )


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
                "axis_codes": "RAS",
                "label_ml": {"1": 0.001, "2": 0.001, "4": 0.001},
            }
        ],
        "warnings": [],
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
            "found an affine that moves voxels by up to 2.5 mm (tolerance 0.01 mm)"
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


def test_a_label_without_foreground_is_a_warning(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels())
    assert warnings(tmp_path) == [
        (
            "a: DATA/a/a_seg.nii.gz: a label without foreground; "
            "right for a healthy patient, otherwise the segmentation is missing"
        )
    ]


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


def test_a_head_of_a_quarter_metre_that_measures_a_quarter_millimetre_is_a_defect(tmp_path):
    affine = np.diag([0.001, 0.001, 0.001, 1])
    save(tmp_path / "imagesTr" / "a.nii.gz", intensities(), affine)
    save(tmp_path / "labelsTr" / "a.nii.gz", labels(1), affine)
    assert lines(tmp_path, HIPPOCAMPUS) == [
        (
            "a: DATA/imagesTr/a.nii.gz: expected voxels of at least 0.02 mm, "
            "found 0.001 x 0.001 x 0.001 mm (z, y, x), which look like metres"
        )
    ]


def test_a_header_that_states_metres_is_a_defect(tmp_path):
    save(make_case(tmp_path, "a") / "a_t2.nii.gz", intensities(), xyzt_units=1)
    assert lines(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: expected a header with positive voxel sizes in mm, "
            "found unit code 1 (metre) where 2 stands for mm"
        )
    ]


def test_a_folder_with_the_name_of_an_image_is_a_defect(tmp_path):
    (make_case(tmp_path, "a") / "a_t1.nii.gz").unlink()
    (tmp_path / "a" / "a_t1.nii.gz").mkdir()
    assert lines(tmp_path) == [
        "a: DATA/a/a_t1.nii.gz: expected a NIfTI file, found something that is no file"
    ]


def test_two_scans_of_one_patient_are_a_warning(tmp_path):
    for name in ("BraTS-GLI-00012-000", "BraTS-GLI-00012-001", "BraTS-GLI-00013-000"):
        make_case(tmp_path, name)
    assert warnings(tmp_path) == [
        (
            "BraTS-GLI-00012-000: DATA: 2 scans of one patient, BraTS-GLI-00012: "
            "BraTS-GLI-00012-000, BraTS-GLI-00012-001; keep them at one site and on one side of "
            "every split, or the score will be too good"
        )
    ]


def test_a_table_of_patients_is_taken_instead_of_the_names(tmp_path):
    for name in ("a_0001_1", "a_0001_2", "b", "c"):
        make_case(tmp_path, name)
    patients = {"a_0001_1": "P1", "a_0001_2": "P2", "b": "P3", "c": "P3"}
    assert warnings(tmp_path, patients=patients) == [
        (
            "b: DATA: 2 scans of one patient, P3: b, c; keep them at one site and on one side of "
            "every split, or the score will be too good"
        )
    ]


def test_one_image_under_two_names_is_a_warning_however_it_is_stored(tmp_path):
    make_case(tmp_path, "a")
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = 4  # the same voxels at the same places, stored from right to left
    for channel in CHANNELS:
        image = intensities(seed=f"b {channel}")
        save(tmp_path / "b" / f"b_{channel}.nii.gz", image, flipped)
    save(tmp_path / "b" / "b_t2.nii.gz", intensities(seed="a t2")[::-1].copy(), flipped)
    save(tmp_path / "b" / "b_seg.nii.gz", labels(1), flipped)
    assert warnings(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: the same voxels as DATA/b/b_t2.nii.gz; "
            "keep one of them, and find the one missing"
        )
    ]


def test_one_image_as_two_channels_is_a_warning(tmp_path):
    save(make_case(tmp_path, "a") / "a_t1.nii.gz", intensities(seed="a t1ce"))
    assert warnings(tmp_path) == [
        (
            "a: DATA/a/a_t1.nii.gz: the same voxels as DATA/a/a_t1ce.nii.gz; "
            "keep one of them, and find the one missing"
        )
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Müller_Hans", "'Müller_Hans' in its name looks like a person"),
        ("mri-petra-07", "'petra' in its name looks like a person"),
        ("p_1962-03-14", "'1962-03-14' in its name looks like a day"),
    ],
)
def test_a_name_that_may_identify_a_patient_is_one_warning(tmp_path, name, found):
    make_case(tmp_path, name)
    advice = "give its folder and files a pseudonym if it tells a name, a birth or an examination"
    assert warnings(tmp_path) == [f"{name}: DATA/{name}/{name}_t1.nii.gz: {found}; {advice}"]


def test_every_case_with_a_name_is_listed(tmp_path):
    make_case(tmp_path, "petra-1")
    make_case(tmp_path, "petra-2")
    found = inspect_folder(tmp_path, BRATS).warnings
    assert [warning.case for warning in found] == ["petra-1", "petra-2"]


def test_a_header_text_that_looks_like_a_name_is_one_warning_for_all_files(tmp_path):
    for name in "ab":
        path = make_case(tmp_path, name) / f"{name}_t2.nii.gz"
        save(path, intensities(seed=name), descrip="Schmidt^Petra")
    assert warnings(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: 'Schmidt^Petra' in the field descrip of its header and of "
            "1 more files looks like a person; clear that field of the header if it names the "
            "patient"
        )
    ]


def test_a_dicom_header_within_the_file_is_a_warning(tmp_path):
    image = nib.Nifti1Image(intensities(seed=1), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("dicom", b"(0010,0010)"))
    nib.save(image, make_case(tmp_path, "a") / "a_t2.nii.gz")
    assert warnings(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: its header carries a DICOM header, where name and birth date "
            "may stand; convert it again without extensions"
        )
    ]


def test_a_qform_and_an_sform_that_disagree_are_a_warning(tmp_path):
    image = nib.Nifti1Image(intensities(seed=1), np.eye(4))
    image.set_qform(np.diag([-1.0, 1, 1, 1]), code=1)
    nib.save(image, make_case(tmp_path, "a") / "a_t2.nii.gz")
    assert warnings(tmp_path) == [
        (
            "a: DATA/a/a_t2.nii.gz: a qform that points to LAS, an sform to RAS; "
            "compare left and right with the scanner's images"
        )
    ]


def test_a_case_whose_axes_lie_unlike_all_others_is_a_warning(tmp_path):
    for name in "abcdef":
        make_decathlon_case(tmp_path, name, np.diag([-1.0, -1, 1, 1]) if name == "c" else None)
    assert warnings(tmp_path, HIPPOCAMPUS)[0] == (
        "c: DATA/imagesTr/c.nii.gz: axes that point to LPS where nearly all other cases have RAS; "
        "compare it with the scanner's images"
    )


def test_a_case_that_is_flipped_against_all_others_is_a_warning(tmp_path):
    for name in "abcdef":
        make_decathlon_case(tmp_path, name, flip=name == "e")
    assert warnings(tmp_path, HIPPOCAMPUS) == [
        (
            "e: DATA/imagesTr/e.nii.gz: an image that fits the other cases better when it is "
            "turned left to right (correlation 1.00 instead of -0.70); "
            "compare it with the scanner's images"
        )
    ]


def make_decathlon_case(
    folder: Path, name: str, affine: np.ndarray | None = None, flip: bool = False
) -> None:
    """Write an image that is bright at the lower right front, with a little noise of its own."""
    voxels = np.arange(20 * 22 * 24, dtype=np.float32).reshape(20, 22, 24) ** 3
    voxels *= intensities(20, 22, 24, seed=name) / 100
    stored = voxels[::-1].copy() if flip else voxels
    save(folder / "imagesTr" / f"{name}.nii.gz", stored, affine)
    label = np.zeros(stored.shape, np.uint8)
    label[3:5, 4:6, 7:9] = 1
    save(folder / "labelsTr" / f"{name}.nii.gz", label, affine)


def test_several_workers_find_the_same_in_the_same_order(tmp_path):
    for name in "abcdefg":
        save(make_case(tmp_path, name) / f"{name}_seg.nii.gz", labels(3 if name in "bf" else 0))
    alone = inspect_folder(tmp_path, BRATS, workers=1)
    assert [defect.case for defect in alone.defects] == ["b", "f"]
    for workers in (2, 5, None):
        assert inspect_folder(tmp_path, BRATS, workers=workers) == alone


def test_an_interruption_stops_the_cases_that_have_not_begun(tmp_path):
    for name in range(30):
        make_case(tmp_path, f"c{name}")

    def interrupted(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_folder(tmp_path, BRATS, progress=interrupted, workers=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cases")]


def test_an_inspection_changes_nothing_on_the_disk(tmp_path):
    save(make_case(tmp_path, "a") / "a_seg.nii.gz", labels(3))
    (tmp_path / "a" / "a_t2.nii.gz").write_bytes(b"broken")
    before = state_of(tmp_path)
    found = inspect_folder(tmp_path, BRATS, pictures={})
    assert isinstance(found, Inspection)
    assert state_of(tmp_path) == before
    assert len(before) == 6


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Return content and time of everything below a folder."""
    return {
        str(path): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


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
    assert found.warnings == ()
    first = found.cases[0]
    assert (first.name, first.shape, first.spacing_mm) == (
        "hippocampus_001",
        (35, 51, 35),
        (1, 1, 1),
    )
    assert (first.labels, first.axis_codes) == ((0, 1, 2), "RAS")
