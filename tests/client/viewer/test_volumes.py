"""What the page draws: its grid, its outlines, and where reference and prediction disagree."""

import nibabel as nib
import numpy as np
import pytest

from client.dataset.nifti import Grid, grid_of, write_image
from client.viewer.listing import ListedCase, list_cases
from client.viewer.volumes import (
    FALSE_ALARM,
    MISSED,
    OTHER_LABEL,
    Labels,
    Mark,
    difference,
    ends_of,
    focus_of,
    image_file,
    marks_of,
    outline_of,
    read_case_labels,
)
from common.case import Case
from common.errors import DataError
from common.task import load_task

BRATS = load_task("brats-2021")
LPS = Grid(np.diag([-1.0, -2.0, 3.0, 1.0]), (9, 5, 4))


def labels(*rows: str) -> np.ndarray:
    """Return one slice from its rows, '.' being background."""
    return np.array([[[int(c) if c != "." else 0 for c in row] for row in rows]], np.uint8)


def read_back(content: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(content)


def test_the_outline_keeps_what_touches_another_label():
    square = labels(".....", ".111.", ".111.", ".111.", ".....")
    drawn = labels(".....", ".111.", ".1.1.", ".111.", ".....")
    assert np.array_equal(outline_of(square, (1.0, 1.0, 1.0)), drawn > 0)


def test_thick_slices_are_not_compared_with_each_other():
    blob = np.zeros((3, 5, 5), np.uint8)
    blob[1] = 1  # a whole slice: nothing but outline if the slices above and below counted
    assert outline_of(blob, (1.0, 1.0, 1.0))[1].all()
    assert not outline_of(blob, (3.0, 1.0, 1.0)).any()


@pytest.mark.parametrize(
    ("reference", "prediction", "members", "expected"),
    [
        (1, 1, None, 0),
        (1, 0, None, MISSED),
        (0, 4, None, FALSE_ALARM),
        (2, 4, None, OTHER_LABEL),
        (2, 4, (1, 2, 4), 0),  # both lie in the whole tumour
        (2, 4, (4,), FALSE_ALARM),
        (4, 2, (4,), MISSED),
        (0, 0, (4,), 0),
    ],
)
def test_disagreement_is_judged_by_label_or_by_region(reference, prediction, members, expected):
    assert difference(Mark(reference, prediction, False), members) == expected


def test_marks_hold_both_label_maps_and_the_outline():
    reference, prediction = labels("111", "111", "111"), labels("..4", "..4", "...")
    grid = grid_of((1.0, 1.0, 1.0), (1, 3, 3))
    padded = [np.pad(volume, ((0, 0), (1, 1), (1, 1))) for volume in (reference, prediction)]
    marks = marks_of(Labels(grid_of((1.0, 1.0, 1.0), (1, 5, 5)), *padded, ()))
    assert grid.shape_zyx == reference.shape
    assert marks.table[0] == Mark(0, 0, False)
    found = [[marks.table[code] for code in row] for row in marks.volume[0].tolist()]
    assert found[1][1] == Mark(1, 0, True)
    assert found[2][2] == Mark(1, 0, False)
    assert found[1][3] == Mark(1, 4, True)
    assert marks.volume.dtype == np.uint8


def test_more_than_256_marks_take_two_bytes():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    grid = grid_of((1.0, 1.0, 1.0), (2, 16, 16))
    reference, prediction = np.concatenate([every, every]), np.concatenate([every, every[:, ::-1]])
    marks = marks_of(Labels(grid, reference, prediction, ()))
    assert len(marks.table) > 256
    assert marks.volume.dtype == np.uint16
    here = marks.table[marks.volume[1, 0, 5]]
    assert (here.reference, here.prediction) == (5, 245)


def test_an_image_is_sent_without_its_empty_border_at_its_own_place(tmp_path):
    image = np.zeros((4, 5, 9), np.float32)  # z, y, x of RAS+
    image[1:3, 1:4, 2:8] = np.arange(36).reshape(2, 3, 6) + 1
    case = case_of(tmp_path, image, LPS)
    sent = read_back(image_file(ListedCase(case), 0, BRATS))
    original = nib.load(case.images[0])
    assert sent.shape == (6, 3, 2)
    assert nib.aff2axcodes(sent.affine) == nib.aff2axcodes(original.affine) == ("L", "P", "S")
    for index in np.ndindex(sent.shape):
        world = sent.affine @ [*index, 1]
        there = np.linalg.solve(original.affine, world)[:3].round().astype(int)
        assert original.get_fdata()[tuple(there)] == sent.get_fdata()[index]


def test_labels_outside_the_head_stay_in_the_picture(tmp_path):
    image = np.zeros((4, 5, 9), np.float32)
    image[1, 1, 1] = 1
    stray = np.zeros((4, 5, 9), np.uint8)
    stray[3, 4, 8] = 1
    case = case_of(tmp_path, image, LPS)
    write_image(tmp_path / "stray.nii.gz", stray, LPS)
    assert read_back(image_file(ListedCase(case), 0, BRATS)).shape == (1, 1, 1)
    with_stray = ListedCase(case, tmp_path / "stray.nii.gz")
    assert read_back(image_file(with_stray, 0, BRATS)).shape == (8, 4, 3)


def test_the_window_leaves_out_the_darkest_and_the_brightest_percent(tmp_path):
    image = np.zeros((1, 11, 101), np.float32)
    image[0, :10, :100] = np.arange(1, 1001).reshape(10, 100)
    grid = grid_of((1.0, 1.0, 1.0), image.shape)
    header = read_back(image_file(ListedCase(case_of(tmp_path, image, grid)), 0, BRATS)).header
    assert float(header["cal_min"]) == pytest.approx(10.99)
    assert float(header["cal_max"]) == pytest.approx(990.01)


def test_one_file_with_all_channels_gives_the_one_that_is_asked_for(tmp_path):
    stored = np.zeros((2, 2, 2, 4), np.float32)
    stored[...] = [10, 20, 30, 40]
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "all.nii")
    case = Case("all", (tmp_path / "all.nii",), None)
    assert read_back(image_file(ListedCase(case), 2, BRATS)).get_fdata().max() == 30


def test_a_damaged_file_is_named(tmp_path):
    case = case_of(tmp_path, np.ones((4, 5, 9), np.float32), LPS)
    case.images[3].write_bytes(case.images[3].read_bytes()[:40])
    with pytest.raises(DataError, match=r"flair\.nii\.gz"):
        image_file(ListedCase(case), 3, BRATS)


def test_a_prediction_in_another_grid_is_a_fault_and_is_not_drawn(cases):
    listing = list_cases(cases.data, BRATS, cases.predictions, None, lambda *_: None)
    found = read_case_labels(listing.cases[0], BRATS)
    assert found.prediction is None
    assert found.reference is not None
    assert "expected the grid of elsewhere_t1.nii.gz, found shape 9x5x3" in found.faults[0]


def test_the_first_look_goes_to_the_slice_with_most_disagreement():
    shape = (4, 5, 9)
    reference, prediction = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    reference[1, 1:4, 1:8] = prediction[1, 1:4, 1:8] = 1
    reference[3, 2, 3:6] = 1
    grid = grid_of((1.0, 1.0, 1.0), shape)
    assert focus_of(Labels(grid, reference, prediction, ())) == (3, 2, 4)
    assert focus_of(Labels(grid, reference, reference, ())) == (1, 2, 4)
    assert focus_of(Labels(grid, None, prediction, ())) == (1, 2, 4)
    assert focus_of(Labels(grid, None, None, ())) == (2, 2, 4)


def test_the_ends_of_an_empty_mask_are_those_of_the_image():
    mask = np.zeros((4, 5, 9), np.bool_)
    assert ends_of(mask) == ((0, 0, 0), (3, 4, 8))
    mask[1, 2, 3] = mask[2, 2, 7] = True
    assert ends_of(mask) == ((1, 2, 3), (2, 2, 7))


def case_of(folder, image: np.ndarray, grid: Grid) -> Case:
    paths = tuple(folder / f"one_{channel}.nii.gz" for channel in BRATS.channels)
    for path in paths:
        write_image(path, image, grid)
    return Case("one", paths, None)
