"""Scoring folders: missing and unusable predictions, several at once, every defect at once."""

from pathlib import Path

import numpy as np
import pytest

from client.dataset.nifti import grid_of, write_image, write_labels
from client.scoring.score import FolderScores, Scoring, score_folders
from common.axes import LabelMap
from common.errors import ConfigError, DataError
from common.evaluation.empty_rules import RULES
from common.evaluation.further_metrics import wanted_metrics
from common.evaluation.metrics import RegionScore
from common.evaluation.surface import Hd95
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


def score(
    folder: Path, task_name: str = "brats-2021", hd95: Hd95 = "pooled", **options: object
) -> FolderScores:
    scoring = Scoring(load_task(task_name), hd95)
    return score_folders(folder / "true", folder / "found", scoring, **options)  # type: ignore[arg-type]


def complaints(folder: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        score(folder)
    return [f"{d.case}: expected {d.expected}, found {d.found}" for d in error.value.defects]


def test_equal_flat_folders_score_perfectly_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
        save(tmp_path / "found" / f"{name}.nii.gz", tumour())
    table = score(tmp_path).table
    assert list(table) == ["a", "b"]
    assert table["a"] == {"WT": PERFECT, "TC": PERFECT, "ET": PERFECT}


def test_distances_use_the_spacing_of_the_file(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a.nii.gz", tumour(z=1))
    save(tmp_path / "found" / "a.nii.gz", tumour(z=2))  # one voxel up: 3 mm
    table = score(tmp_path).table
    assert table["a"]["WT"].hd95 == 3.0
    assert table["a"]["WT"].dice == 0.0


def test_a_case_without_prediction_has_the_score_of_a_missing_case(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
    save(tmp_path / "found" / "b.nii.gz", tumour())
    table = score(tmp_path, hd95="max").table
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
    perfect = {"a": {"WT": PERFECT, "TC": PERFECT, "ET": PERFECT}}
    assert score(tmp_path, "brats-2013").table == perfect
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
    score(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def save_three_of_which_one_is_corrupt(folder: Path) -> None:
    for name in ("a", "b", "c"):
        save(folder / "true" / f"{name}.nii.gz", tumour())
    save(folder / "found" / "a.nii.gz", tumour())
    save(folder / "found" / "b.nii.gz", tumour())
    whole = (folder / "found" / "b.nii.gz").read_bytes()
    (folder / "found" / "b.nii.gz").write_bytes(whole[:-20])


def test_a_corrupt_prediction_is_a_defect_and_the_missing_one_is_listed_with_it(
    tmp_path: Path,
) -> None:
    save_three_of_which_one_is_corrupt(tmp_path)
    assert complaints(tmp_path) == [
        "b: expected a whole NIfTI file, found one that is cut short or damaged",
        "c: expected a prediction, found none",
    ]


def test_a_corrupt_prediction_counts_as_missing_if_asked(tmp_path: Path) -> None:
    save_three_of_which_one_is_corrupt(tmp_path)
    found = score(tmp_path, missing_as_zero=True)
    assert found.table["a"] == {"WT": PERFECT, "TC": PERFECT, "ET": PERFECT}
    assert found.table["b"] == found.table["c"] == {"WT": MISSING, "TC": MISSING, "ET": MISSING}
    assert found.missing == ("c",)
    assert [line.partition(":")[0] for line in found.warnings] == ["c", "b"]


def test_every_kind_of_unusable_prediction_counts_as_missing_if_asked(tmp_path: Path) -> None:
    for name in ("grid", "label", "twice"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
    unknown = tumour()
    unknown[0, 0, 0] = 3
    save(tmp_path / "found" / "grid.nii.gz", tumour()[:3])
    save(tmp_path / "found" / "label.nii.gz", unknown)
    save(tmp_path / "found" / "twice.nii.gz", tumour())
    save(tmp_path / "found" / "twice" / "twice_seg.nii.gz", tumour())
    found = score(tmp_path, missing_as_zero=True)
    assert {defect.case for defect in found.unusable} == {"grid", "label", "twice"}
    assert all(row == MISSING for rows in found.table.values() for row in rows.values())


def test_a_defect_of_a_reference_is_never_forgiven(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a.nii.gz", tumour())
    save(tmp_path / "found" / "a.nii.gz", tumour())
    save(tmp_path / "found" / "other.nii.gz", tumour())  # of a case that is not there
    (tmp_path / "true" / "a.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        score(tmp_path, missing_as_zero=True)
    assert [defect.case for defect in error.value.defects] == ["a", "other"]


def test_a_case_that_is_there_twice_is_a_defect_on_either_side(tmp_path: Path) -> None:
    for folder in ("true", "found"):
        save(tmp_path / folder / "a.nii.gz", tumour())
    save(tmp_path / "true" / "a" / "a_seg.nii.gz", tumour())
    save(tmp_path / "true" / "b.nii.gz", tumour())
    save(tmp_path / "found" / "b.nii.gz", tumour())
    save(tmp_path / "found" / "b.nii", tumour())
    found = complaints(tmp_path)
    assert [line.split(",")[0] for line in found] == [
        "a: expected one label file",
        "b: expected one label file",
    ]


def test_the_result_does_not_depend_on_how_many_cases_are_scored_at_once(tmp_path: Path) -> None:
    for number in range(9):
        save(tmp_path / "true" / f"{number}.nii.gz", tumour())
        save(tmp_path / "found" / f"{number}.nii.gz", tumour(z=number % 4))
    assert score(tmp_path, workers=1) == score(tmp_path, workers=4)
    assert list(score(tmp_path, workers=4).results) == [str(number) for number in range(9)]


def test_volumes_are_in_millilitres_and_unknown_without_a_prediction(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())  # three voxels of 6 mm3
    save(tmp_path / "found" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    results = score(tmp_path).results
    assert (results["a"]["WT"].reference_ml, results["a"]["WT"].prediction_ml) == (0.018, 0.0)
    assert (results["b"]["WT"].reference_ml, results["b"]["WT"].prediction_ml) == (0.018, None)


def test_further_metrics_are_scored_by_the_same_rules(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / "true" / f"{name}.nii.gz", tumour())
    save(tmp_path / "found" / "a.nii.gz", tumour())
    save(tmp_path / "found" / "b.nii.gz", np.zeros(SHAPE, np.uint8))
    wanted = wanted_metrics(["nsd", "volume_difference"], 1.0, "metastases")
    scoring = Scoring(BRATS, "pooled", RULES["brats-2023"], wanted)
    found = score_folders(tmp_path / "true", tmp_path / "found", scoring)
    names = ("nsd", "volume_difference", "lesionwise_dice", "lesionwise_hd95")
    perfect, worst = (1.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 374.0)
    assert found.further["a"]["WT"] == dict(zip(names, perfect, strict=True))
    assert found.further["b"]["WT"] == dict(zip(names, worst, strict=True))
    assert found.further["c"]["WT"] == dict(zip(names, worst, strict=True))
    assert found.table["b"]["WT"].hd95 == 374.0
    assert scoring.definition.rules == "brats-2023"
    assert scoring.definition.further == wanted


def test_the_command_scores_and_says_what_counts_as_missing(run, tmp_path: Path) -> None:
    save_three_of_which_one_is_corrupt(tmp_path)
    folders = ["--reference", tmp_path / "true", "--prediction", tmp_path / "found"]
    code, _, errors = run("score", *folders, "-o", tmp_path / "a.csv")
    assert code == 2
    assert "b: " in errors
    assert "c: " in errors
    assert not (tmp_path / "a.csv").exists()
    asked = ["--missing-as-zero", "--lesion-wise", "--lesion-rules", "metastases"]
    code, printed, errors = run(
        "score", *folders, "-o", tmp_path / "a.csv", *asked, "--report", tmp_path / "a.html"
    )
    assert code == 0
    assert "3 cases, 2 of them without a prediction" in printed
    assert "warning: c: no prediction; counts as Dice 0 and HD95 374 mm" in errors
    header, *rows = (tmp_path / "a.csv").read_text().splitlines()
    assert header.endswith("specificity,lesionwise_dice,lesionwise_hd95")
    assert rows[3] == "b,WT,0.0,374.0,0.0,0.0,0.0,374.0"
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")


def test_the_command_refuses_an_unknown_metric_before_it_reads_anything(
    run, tmp_path: Path
) -> None:
    folders = ["--reference", tmp_path / "none", "--prediction", tmp_path / "none"]
    code, _, errors = run("score", *folders, "-o", tmp_path / "a.csv", "--metrics", "dice,iou")
    assert code == 2
    assert "metrics: expected some of dice, hd95" in errors
