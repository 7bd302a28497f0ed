"""One head, stored in every way a hospital may store it, is one head to the network."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that everybody gives it
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from client.dataset.nifti import Scan, read_labels, read_scan, write_labels
from client.preparation.preprocess import Prepared, prepare, restore, uncrop
from common.case import Case
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor

SPACING_XYZ_MM = (0.9, 1.1, 2.0)
ORIGIN_MM = (-31.0, 12.5, 40.0)
STORED = ["RAS", "LPS", "LPI", "RAI", "SAR", "PIL", "IRP"]  # the last three permute the axes
KINDS = ["float64", "int16"]
PLAN = Plan(
    schema=1,
    hash="0" * 64,
    rules="v2",
    planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=2, memory_gb=8.0),
    channels=("MRI",),
    transpose=(1, 0, 2),
    normalization=(Normalization(channel="MRI", scheme="masked-z-score"),),
    configurations={
        "3d_fullres": Configuration(
            spacing_mm=(1.0, 1.5, 1.0),
            median_shape=(8.0, 8.0, 8.0),
            patch_size=(8, 8, 8),
            batch_size=2,
            strides=(),
            kernel_sizes=((3, 3, 3),),
            features_per_stage=(8,),
            batch_dice=False,
            deep_supervision_weights=(1.0,),
        )
    },
)


def head() -> tuple[np.ndarray, np.ndarray]:
    """Return intensities and labels of an asymmetric head, RAS+ axes (x, y, z), empty around."""
    x, y, z = np.mgrid[-1:1:20j, -1:1:24j, -1:1:14j]
    inside = (x**2 + y**2 + z**2 < 0.8) | ((x > 0.2) & (y > 0.5) & (z < 0) & (x < 0.7) & (y < 0.9))
    values = np.round(400 + 100 * x - 50 * y + 150 * x * z) * 0.25  # exact in float32 and int16
    labels = np.select([(x > 0.3) & inside, (y > 0.2) & inside], [2, 1], 0)
    return np.where(inside, values, 0.0), labels.astype(np.uint8)


def write_as(path: Path, voxels: np.ndarray, codes: str, kind: str) -> None:
    """Store RAS+ voxels along other axes; int16 with a slope of 0.25 and an intercept of 5."""
    affine = np.diag([*SPACING_XYZ_MM, 1.0])
    affine[:3, 3] = ORIGIN_MM
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(codes)))
    turned = nib.orientations.apply_orientation(voxels, turn)
    turned_affine = affine @ inv_ornt_aff(turn, voxels.shape)
    if kind == "int16":
        image = nib.Nifti1Image(np.rint((turned - 5) / 0.25).astype(np.int16), turned_affine)
        image.header.set_slope_inter(0.25, 5)
    else:
        image = nib.Nifti1Image(turned.astype(kind), turned_affine)
    nib.save(image, path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return read_and_prepared(tmp_path_factory.mktemp("ras"), "RAS", "float64")[1]


def read_and_prepared(folder: Path, codes: str, kind: str) -> tuple[Scan, Prepared]:
    intensities, labels = head()
    write_as(folder / "image.nii.gz", intensities, codes, kind)
    write_as(folder / "labels.nii.gz", labels, codes, "uint8")
    scan = read_scan(Case(name="case", images=(folder / "image.nii.gz",), label=None), 1)
    read, _ = read_labels(folder / "labels.nii.gz", None)
    configuration = PLAN.configurations["3d_fullres"]
    return scan, prepare(scan.image, scan.spacing_mm, read, PLAN, configuration)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("codes", STORED)
def test_however_it_is_stored_a_case_is_prepared_alike(
    tmp_path: Path, expected: Prepared, codes: str, kind: str
) -> None:
    _, prepared = read_and_prepared(tmp_path, codes, kind)
    assert prepared.image.shape == (1, 22, 17, 14)  # crop 20 x 13 x 16 of (y, z, x)
    np.testing.assert_array_equal(prepared.image, expected.image)
    assert prepared.labels is not None
    np.testing.assert_array_equal(prepared.labels, expected.labels)


@pytest.mark.parametrize("codes", STORED)
def test_a_prediction_lies_where_its_image_lies(tmp_path: Path, codes: str) -> None:
    scan, prepared = read_and_prepared(tmp_path, codes, "int16")
    assert prepared.labels is not None
    outputs = np.stack([prepared.labels == value for value in range(3)]).astype(np.float32)
    on_crop = restore(outputs, prepared.geometry).argmax(axis=0).astype(np.uint8)
    full = uncrop(on_crop, prepared.geometry)
    write_labels(tmp_path / "prediction.nii.gz", full, scan.grid)

    image, prediction = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("image", "prediction"))
    assert prediction.shape == image.shape
    np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-5)
    by_nibabel = np.asarray(nib.as_closest_canonical(prediction).dataobj)
    assert overlap(by_nibabel, head()[1]) > 0.9  # there and back again costs some of the border

    itk_image, itk_prediction = (
        sitk.ReadImage(tmp_path / f"{name}.nii.gz") for name in ("image", "prediction")
    )
    assert itk_prediction.GetSize() == itk_image.GetSize()
    np.testing.assert_allclose(itk_prediction.GetOrigin(), itk_image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(itk_prediction.GetDirection(), itk_image.GetDirection(), atol=1e-6)
    by_itk = sitk.GetArrayFromImage(sitk.DICOMOrient(itk_prediction, "LPS")).T[::-1, ::-1]
    np.testing.assert_array_equal(by_itk, by_nibabel)


@pytest.mark.parametrize("codes", STORED)
def test_without_resampling_the_reference_itself_comes_back(tmp_path: Path, codes: str) -> None:
    write_as(tmp_path / "image.nii.gz", head()[0], codes, "int16")
    write_as(tmp_path / "labels.nii.gz", head()[1], codes, "uint8")
    scan = read_scan(Case(name="case", images=(tmp_path / "image.nii.gz",), label=None), 1)
    labels, _ = read_labels(tmp_path / "labels.nii.gz", None)
    z_mm, y_mm, x_mm = scan.spacing_mm
    own = replace(PLAN.configurations["3d_fullres"], spacing_mm=(y_mm, z_mm, x_mm))
    prepared = prepare(scan.image, scan.spacing_mm, labels, PLAN, own)
    assert prepared.labels is not None
    outputs = np.stack([prepared.labels == value for value in range(3)]).astype(np.float32)
    on_crop = restore(outputs, prepared.geometry).argmax(axis=0).astype(np.uint8)
    write_labels(tmp_path / "prediction.nii.gz", uncrop(on_crop, prepared.geometry), scan.grid)
    stored = (nib.load(tmp_path / f"{name}.nii.gz") for name in ("labels", "prediction"))
    np.testing.assert_array_equal(*(np.asarray(file.dataobj) for file in stored))


def overlap(reference: np.ndarray, prediction: np.ndarray) -> float:
    """Return the Dice overlap of everything that is not background, label by label."""
    same = np.count_nonzero((reference == prediction) & (reference > 0))
    return 2 * same / (np.count_nonzero(reference) + np.count_nonzero(prediction))
