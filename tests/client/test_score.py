"""Scoring folders: pairing by name, missing predictions, and every defect at once."""

from pathlib import Path

import numpy as np
import pytest

from client.nifti import grid_of, write_image, write_labels
from client.score import find_pairs, score_folders
from common.axes import LabelMap
from common.errors import ConfigError, DataError
from common.metrics import RegionScore
from common.task import load_task

BRATS = load_task("brats-2021")
SHAPE = (4, 5, 6)
SPACING_MM = (3.0, 2.0, 1.0)
PERFECT = RegionScore(dice=1.0, hd95=0.0, sensitivity=1.0, specificity=1.0)
MISSING = RegionScore(dice=0.0, hd95=374.0, sensitivity=0.0, specificity=0.0)


def tumour(z: int = 1) -> LabelMap:
    """Return one voxel of each label, side by side along x, at height z."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[z, 2, 1:4] = [2, 1, 4]
    return labels


def save(path: Path, labels: LabelMap, spacing_mm: tuple[float, float, float] = SPACING_MM) -> None:
    write_labels(path, labels, grid_of(spacing_mm, labels.shape))


def score(folder: Path, task_name: str = "brats-2021") -> object:
    return score_folders(folder / "true", folder / "found", load_task(task_name), hd95="pooled")


def complaints(folder: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        score(folder)
    return [f"{d.case}: expected {d.expected}, found {d.found}" for d in error.value.defects]


def test_equal_flat_folders_score_perfectly_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
        save(tmp_path / "found" / f"{name}.nii.gz", tumour())
    table = score_folders(tmp_path / "true", tmp_path / "found", BRATS, hd95="pooled")
    assert list(table) == ["a", "b"]
    assert table["a"] == {"WT": PERFECT, "TC": PERFECT, "ET": PERFECT}


def test_distances_use_the_spacing_of_the_file(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a.nii.gz", tumour(z=1))
    save(tmp_path / "found" / "a.nii.gz", tumour(z=2))  # one voxel up: 3 mm
    table = score_folders(tmp_path / "true", tmp_path / "found", BRATS, hd95="pooled")
    assert table["a"]["WT"].hd95 == 3.0
    assert table["a"]["WT"].dice == 0.0


def test_brats_folders_pair_with_flat_predictions(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a" / "a_seg.nii.gz", tumour())
    save(tmp_path / "true" / "a" / "a_flair.nii.gz", tumour())
    save(tmp_path / "true" / "b" / "b-seg.nii.gz", tumour())
    save(tmp_path / "found" / "a.nii.gz", tumour())
    save(tmp_path / "found" / "b_seg.nii.gz", tumour())
    pairs, defects = find_pairs(tmp_path / "true", tmp_path / "found", BRATS)
    assert not defects
    assert [(pair.case, pair.reference.name, pair.prediction) for pair in pairs] == [
        ("a", "a_seg.nii.gz", tmp_path / "found" / "a.nii.gz"),
        ("b", "b-seg.nii.gz", tmp_path / "found" / "b_seg.nii.gz"),
    ]


def test_a_decathlon_data_set_is_scored_by_its_labels(tmp_path: Path) -> None:
    save(tmp_path / "true" / "labelsTr" / "a.nii.gz", tumour())
    save(tmp_path / "true" / "imagesTr" / "a.nii.gz", tumour())
    (tmp_path / "true" / "labelsTr" / "._a.nii.gz").write_bytes(b"left by a file system")
    save(tmp_path / "found" / "a.nii.gz", tumour())
    pairs, defects = find_pairs(tmp_path / "true", tmp_path / "found", BRATS)
    assert ([pair.case for pair in pairs], defects) == (["a"], [])


def test_a_case_without_prediction_has_the_score_of_a_missing_case(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
    save(tmp_path / "found" / "b.nii.gz", tumour())
    table = score_folders(tmp_path / "true", tmp_path / "found", BRATS, hd95="max")
    assert table == {
        "a": {"WT": MISSING, "TC": MISSING, "ET": MISSING},
        "b": {"WT": PERFECT, "TC": PERFECT, "ET": PERFECT},
    }


def test_a_folder_without_any_prediction_is_a_defect(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a.nii.gz", tumour())
    (tmp_path / "found").mkdir()
    expected = "at least one label file (.nii.gz); a folder of none is no submission"
    assert complaints(tmp_path) == [f"data set: expected {expected}, found none"]


def test_the_task_maps_labels_of_other_conventions(tmp_path: Path) -> None:
    older = tumour()
    older[older == 1] = 3  # BraTS 2013: 3 is non-enhancing core and belongs to necrosis
    save(tmp_path / "true" / "a.nii.gz", older)
    save(tmp_path / "found" / "a.nii.gz", tumour())
    assert score(tmp_path, "brats-2013") == {"a": {"WT": PERFECT, "TC": PERFECT, "ET": PERFECT}}
    assert complaints(tmp_path) == ["a: expected labels 0, 1, 2, 4 of brats-2021, found 3"]


def test_every_defect_of_every_case_is_reported_at_once(tmp_path: Path) -> None:
    for name in ("affine", "broken", "extra", "fraction", "label", "shape", "twice"):
        if name != "extra":
            save(tmp_path / "true" / f"{name}.nii.gz", tumour())
        save(tmp_path / "found" / f"{name}.nii.gz", tumour())
    unknown = tumour()
    unknown[0, 0, :2] = [7, 3]
    save(tmp_path / "found" / "affine.nii.gz", tumour(), (3.0, 2.0, 1.5))
    whole = (tmp_path / "found" / "broken.nii.gz").read_bytes()
    (tmp_path / "found" / "broken.nii.gz").write_bytes(whole[:-20])
    halves = tumour().astype(np.float32) / 2
    write_image(tmp_path / "found" / "fraction.nii.gz", halves, grid_of(SPACING_MM, SHAPE))
    save(tmp_path / "found" / "label.nii.gz", unknown)
    save(tmp_path / "found" / "shape.nii.gz", tumour()[:3])
    save(tmp_path / "found" / "twice" / "twice_seg.nii.gz", tumour())
    found = complaints(tmp_path)
    assert {line.split(":")[0] for line in found} == {
        "affine", "broken", "extra", "fraction", "label", "shape", "twice",
    }  # fmt: skip
    assert len(found) == 7
    assert "label: expected labels 0, 1, 2, 4 of brats-2021, found 3, 7" in found


def test_a_case_folder_without_a_label_is_a_defect(tmp_path: Path) -> None:
    for channel in ("t1", "flair"):
        save(tmp_path / "true" / "a" / f"a_{channel}.nii.gz", tumour())
    save(tmp_path / "found" / "a.nii.gz", tumour())
    assert complaints(tmp_path) == ["a: expected one label file, found none"]


def test_an_empty_reference_folder_is_a_defect(tmp_path: Path) -> None:
    for name in ("true", "found"):
        (tmp_path / name).mkdir()
    assert "data set: expected at least one label file (.nii.gz), found none" in (
        complaints(tmp_path)
    )


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a.nii.gz", tumour())
    with pytest.raises(ConfigError, match="found: expected a folder of label files"):
        score(tmp_path)


def test_progress_is_told_after_every_case(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
    save(tmp_path / "found" / "a.nii.gz", tumour())
    told: list[tuple[int, int]] = []
    score_folders(
        tmp_path / "true",
        tmp_path / "found",
        BRATS,
        hd95="pooled",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]
