"""Reading, reorienting and writing NIfTI files of 5 x 6 x 7 voxels."""

import gzip
import os
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dataset.nifti import (
    Grid,
    grid_of,
    read_channels,
    read_grid,
    read_labels,
    read_scan,
    same_grid,
    write_image,
    write_labels,
)
from common.case import Case
from common.errors import DataError

# file axis i runs along world axis order[i], forwards (1) or backwards (-1)
ORIENTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]
WORLD_SPACING_MM = (1.0, 2.0, 3.0)  # x, y, z


def affine_of(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        affine[world, axis] = sign * WORLD_SPACING_MM[world]
    affine[:3, 3] = (-90.5, 126.25, -72.0)
    return affine


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def voxels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 6, 7)).astype(np.uint8)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_a_label_map_returns_bit_for_bit_in_each_of_the_48_orientations(tmp_path, order, signs):
    affine = affine_of(order, signs)
    source = save(tmp_path / "in.nii.gz", voxels(), affine)
    labels, grid = read_labels(source, None)
    write_labels(tmp_path / "out.nii.gz", labels, grid)

    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels())
    np.testing.assert_array_equal(written.affine, affine)
    assert written.get_data_dtype() == np.uint8


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_every_orientation_of_one_object_reads_as_the_same_image(tmp_path, order, signs):
    # One bright voxel two steps right, one step to the front and three steps up from the corner
    # with the smallest coordinates; the world box is 5 x 6 x 7 voxels along x, y, z.
    sizes, place = (5, 6, 7), (2, 1, 3)
    stored = np.zeros([sizes[world] for world in order], np.float32)
    index = tuple(
        place[world] if sign > 0 else sizes[world] - 1 - place[world]
        for world, sign in zip(order, signs, strict=True)
    )
    stored[index] = 1
    image, grid = read_channels(save(tmp_path / "a.nii.gz", stored, affine_of(order, signs)))

    assert image.shape == (1, 7, 6, 5)
    assert np.argwhere(image).tolist() == [[0, 3, 1, 2]]
    assert grid.spacing_mm == (3.0, 2.0, 1.0)
    assert grid.shape_zyx == (7, 6, 5)


@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.integers(1, 4)] * 3),
    st.lists(st.floats(-0.3, 0.3), min_size=9, max_size=9),
)
def test_from_ras_undoes_to_ras_on_oblique_grids_too(orientation, shape, tilt):
    affine = affine_of(*orientation)
    affine[:3, :3] += np.reshape(tilt, (3, 3))
    grid = Grid(affine, shape)
    stored = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(grid.from_ras(grid.to_ras(stored)), stored)


def test_a_result_of_another_shape_than_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(5, 6, 7\) \(z, y, x\), found"):
        grid_of((1, 1, 1), (5, 6, 7)).from_ras(np.zeros((7, 6, 5)))


def test_a_synthetic_grid_gives_back_spacing_and_shape_in_zyx():
    grid = grid_of((3.0, 2.0, 1.0), (7, 6, 5))
    assert grid.shape == (5, 6, 7)
    assert (grid.spacing_mm, grid.shape_zyx) == ((3.0, 2.0, 1.0), (7, 6, 5))


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_a_written_image_is_read_with_the_same_values(tmp_path, dtype):
    image = np.random.default_rng(1).normal(0, 300, (7, 6, 5)).astype(dtype)
    write_image(tmp_path / "a.nii.gz", image, grid_of((3, 2, 1), (7, 6, 5)))
    read, grid = read_channels(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read[0], image)
    assert grid.spacing_mm == (3, 2, 1)
    assert read.dtype == np.float32
    assert read.flags.c_contiguous


def test_writing_twice_gives_the_same_bytes_and_leaves_no_other_file(tmp_path):
    labels, grid = np.zeros((7, 6, 5), np.uint8), grid_of((1, 1, 1), (7, 6, 5))
    write_labels(tmp_path / "out" / "a.nii.gz", labels, grid)
    first = (tmp_path / "out" / "a.nii.gz").read_bytes()
    write_labels(tmp_path / "out" / "a.nii.gz", labels, grid)
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == first
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.nii.gz"]


def test_slope_and_intercept_are_applied(tmp_path):
    file = nib.Nifti1Image(np.full((5, 6, 7), 3, np.int16), np.eye(4))
    file.header.set_slope_inter(0.5, 10)
    nib.save(file, tmp_path / "a.nii.gz")
    image, _ = read_channels(tmp_path / "a.nii.gz")
    assert set(image.ravel().tolist()) == {11.5}


def test_a_scan_of_one_file_per_channel_equals_one_file_with_the_channels_last(tmp_path):
    parts = [voxels(seed) for seed in range(3)]
    single = tuple(save(tmp_path / f"{n}.nii.gz", part) for n, part in enumerate(parts))
    joint = save(tmp_path / "all.nii.gz", np.stack(parts, axis=-1))
    by_file = read_scan(Case("a", single, None), 3)
    by_axis = read_scan(Case("a", (joint,), None), 3)
    np.testing.assert_array_equal(by_file.image, by_axis.image)
    assert by_file.image.shape == (3, 7, 6, 5)
    assert by_axis.grid.shape == (5, 6, 7)
    assert by_axis.spacing_mm == (1, 1, 1)


def test_a_scan_with_another_number_of_channels_is_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", voxels())
    with pytest.raises(DataError) as caught:
        read_scan(Case("c1", (path,), None), 4)
    assert [str(defect) for defect in caught.value.defects] == [
        f"c1: {path}: expected 4 channels, found 1"
    ]


def test_a_scan_whose_channels_lie_elsewhere_is_refused(tmp_path):
    moved = np.eye(4)
    moved[0, 3] = 1
    first = save(tmp_path / "a.nii.gz", voxels())
    second = save(tmp_path / "b.nii.gz", voxels(), moved)
    with pytest.raises(DataError) as caught:
        read_scan(Case("c1", (first, second), None), 2)
    assert [str(defect) for defect in caught.value.defects] == [
        (
            f"c1: {second}: expected the grid of a.nii.gz, "
            "found an affine that moves voxels by up to 1 mm (tolerance 0.01 mm)"
        )
    ]


def test_grids_are_the_same_up_to_the_rounding_of_headers():
    grid = grid_of((1, 1, 1), (155, 240, 240))
    rounded = Grid(grid.affine + 1e-6, grid.shape)
    assert same_grid(grid, rounded) is None


def test_grids_of_another_shape_or_spacing_differ_in_words():
    grid = grid_of((1, 1, 1), (7, 6, 5))
    assert same_grid(grid, grid_of((1, 1, 1), (7, 6, 4))) == "shape 4x6x7 instead of 5x6x7"
    # Six steps of half a millimetre.
    assert same_grid(grid, grid_of((1.5, 1, 1), (7, 6, 5))) == (
        "an affine that moves voxels by up to 3 mm (tolerance 0.01 mm)"
    )


def test_a_mapping_renames_labels_and_leaves_the_others(tmp_path):
    stored = np.zeros((5, 6, 7), np.int16)
    stored[0, 0, :4] = [1, 3, 4, 300]
    labels, _ = read_labels(save(tmp_path / "a.nii.gz", stored), {3: 1, 1: 2, 300: 5})
    assert labels[:4, 0, 0].tolist() == [2, 1, 4, 5]
    assert labels.dtype == np.uint8


def test_whole_numbers_in_floating_point_are_labels(tmp_path):
    stored = np.full((5, 6, 7), 2.00001)
    labels, _ = read_labels(save(tmp_path / "a.nii.gz", stored), None)
    assert set(labels.ravel().tolist()) == {2}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "expected whole numbers as labels, found other values in 1 voxels"),
        (np.nan, "expected whole numbers as labels, found other values in 1 voxels"),
        (np.inf, "expected whole numbers as labels, found other values in 1 voxels"),
        (-1.0, "expected labels between 0 and 255, found values from -1 to 0"),
        (256.0, "expected labels between 0 and 255, found values from 0 to 256"),
    ],
)
def test_values_that_are_no_label_are_refused(tmp_path, value, message):
    stored = np.zeros((5, 6, 7))
    stored[1, 2, 3] = value
    path = save(tmp_path / "c1.nii.gz", stored)
    with pytest.raises(DataError) as caught:
        read_labels(path, None)
    assert str(caught.value.defects[0]) == f"c1: {path}: {message}"


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    whole = save(tmp_path / "a.nii.gz", voxels()).read_bytes()
    path = tmp_path / "cut.nii.gz"
    for size in (0, 1, 2, 20, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError):
            read_channels(path)


def test_the_message_for_a_file_cut_short_names_the_file(tmp_path):
    whole = save(tmp_path / "a.nii.gz", voxels()).read_bytes()
    path = tmp_path / "cut.nii.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError) as caught:
        read_channels(path)
    assert str(caught.value) == (
        "The data cannot be used:\n"
        f"cut: {path}: expected a whole NIfTI file, found one that is cut short or damaged"
    )


def test_an_uncompressed_file_cut_short_is_refused_as_well(tmp_path):
    whole = save(tmp_path / "a.nii", voxels()).read_bytes()
    (tmp_path / "a.nii").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="cut short"):
        read_channels(tmp_path / "a.nii")


def test_one_flipped_bit_in_the_compressed_voxels_is_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", voxels())
    content = bytearray(path.read_bytes())
    content[-12] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError):
        read_channels(path)


def test_a_missing_file_and_a_file_of_another_kind_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected a NIfTI file, found no such file"):
        read_channels(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"no image" * 100))
    with pytest.raises(DataError, match="found a fault: no NIfTI header"):
        read_channels(tmp_path / "b.nii.gz")


def test_a_time_series_is_no_label_map(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.zeros((5, 6, 7, 2), np.uint8))
    with pytest.raises(DataError, match="expected a 3-D image, found 4-D of shape 5x6x7x2"):
        read_labels(path, None)


@pytest.mark.parametrize(
    ("offset", "content", "fault"),
    [
        (80, np.float32(0).tobytes(), "voxel sizes 0x1x1"),  # pixdim[1]
        (84, np.float32(-2).tobytes(), "voxel sizes 1x-2x1"),  # pixdim[2]
        (296, bytes(16), "an affine that spans no volume"),  # srow_y
        (123, b"\x01", "unit code 1 (metre) where 2 stands for mm"),  # xyzt_units: metre
    ],
)
def test_a_header_without_a_volume_in_mm_is_refused(tmp_path, offset, content, fault):
    path = save(tmp_path / "a.nii", voxels())
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError) as caught:
        read_channels(path)
    assert caught.value.defects[0].found == fault


def test_complex_voxels_are_refused(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.zeros((5, 6, 7), np.complex64))
    with pytest.raises(DataError, match="expected one real number per voxel, found voxels of type"):
        read_channels(path)


def test_a_file_of_several_gzip_members_and_padding_is_read_like_one(tmp_path):
    whole = save(tmp_path / "a.nii", voxels()).read_bytes()
    parts = gzip.compress(whole[:400]) + gzip.compress(whole[400:]) + bytes(512)
    (tmp_path / "b.nii.gz").write_bytes(parts)
    np.testing.assert_array_equal(
        read_channels(tmp_path / "a.nii")[0], read_channels(tmp_path / "b.nii.gz")[0]
    )


@pytest.mark.parametrize(
    "end", [b"x", gzip.compress(b"more", mtime=0)[:-1]], ids=["a byte", "half a member"]
)
def test_what_follows_the_voxels_is_verified_as_well(tmp_path, end):
    path = save(tmp_path / "a.nii.gz", voxels())
    path.write_bytes(path.read_bytes() + end)
    with pytest.raises(DataError, match="cut short or damaged"):
        read_channels(path)


def test_the_voxels_that_are_returned_can_be_changed(tmp_path):
    image, _ = read_channels(save(tmp_path / "a.nii", voxels().astype(np.float32)))
    image[0, 0, 0, 0] = 7
    labels, _ = read_labels(save(tmp_path / "b.nii", voxels()), None)
    labels[0, 0, 0] = 7
    assert image[0, 0, 0, 0] == labels[0, 0, 0] == 7


@pytest.mark.parametrize("dtype", [">i2", ">f4", "<f8", "<u2"])
def test_every_byte_order_and_type_gives_the_same_labels(tmp_path, dtype):
    stored = (voxels() % 5).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(stored.dtype)
    nib.save(nib.Nifti1Image(stored, np.eye(4), header), tmp_path / "a.nii.gz")
    labels, _ = read_labels(tmp_path / "a.nii.gz", {4: 1})
    expected = (voxels() % 5).T.copy()
    expected[expected == 4] = 1
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("offset", "content", "found"),
    [
        (42, np.int16(32767).tobytes(), "one that is cut short or damaged"),  # dim[1]
        (42, np.int16(-5).tobytes(), "3-D of shape -5x6x7"),
        (108, np.float32(0).tobytes(), "a fault: voxels at byte 0, within the header"),
        (280, np.float32(1e9).tobytes(), "an affine that reaches 1e+09 mm"),  # srow_x
    ],
)
def test_a_header_that_cannot_be_true_is_refused(tmp_path, offset, content, found):
    path = save(tmp_path / "a.nii", voxels())
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError) as caught:
        read_channels(path)
    assert caught.value.defects[0].found == found


def test_a_grid_is_read_from_a_header_that_needs_repair(tmp_path):
    path = save(tmp_path / "in.nii", voxels(), np.diag([3.0, 2.0, 1.0, 1.0]))
    content = bytearray(path.read_bytes())
    content[76:80] = bytes(4)  # qfac, pixdim[0]: 0 in files of many scanners, 1 or -1 by NIfTI
    content[252:256] = bytes([1, 0, 0, 0])  # the quaternion is all there is, no sform
    path.write_bytes(content)
    _, whole = read_channels(path)
    header = read_grid(path)
    assert header.shape == whole.shape == (5, 6, 7)
    assert header.spacing_mm == whole.spacing_mm == (1.0, 2.0, 3.0)


def test_what_a_grid_cannot_be_read_from_is_a_defect_and_no_endless_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(DataError, match="found something that is no file"):
        read_grid(tmp_path / "pipe.nii")


def test_a_file_whose_folder_hides_it_is_a_defect(tmp_path):
    path = tmp_path / ("x" * 300) / "in.nii"  # too long a name is refused as a closed folder is
    with pytest.raises(DataError, match="expected a readable NIfTI file, found a fault"):
        read_channels(path)
