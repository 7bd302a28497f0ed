"""Pairing references and predictions by the name of the case."""

from pathlib import Path

from client.scoring.pairs import find_pairs
from common.task import load_task

BRATS = load_task("brats-2021")


def save(path: Path) -> None:
    """Write what looks like a label file; pairing opens none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def test_brats_folders_pair_with_flat_predictions(tmp_path: Path) -> None:
    save(tmp_path / "true" / "a" / "a_seg.nii.gz")
    save(tmp_path / "true" / "a" / "a_flair.nii.gz")
    save(tmp_path / "true" / "b" / "b-seg.nii.gz")
    save(tmp_path / "found" / "a.nii.gz")
    save(tmp_path / "found" / "b_seg.nii.gz")
    found = find_pairs(tmp_path / "true", tmp_path / "found", BRATS)
    assert (found.defects, found.ambiguous, found.missing) == ((), (), ())
    assert [(pair.case, pair.reference.name, pair.prediction) for pair in found.pairs] == [
        ("a", "a_seg.nii.gz", tmp_path / "found" / "a.nii.gz"),
        ("b", "b-seg.nii.gz", tmp_path / "found" / "b_seg.nii.gz"),
    ]


def test_a_decathlon_data_set_is_scored_by_its_labels(tmp_path: Path) -> None:
    save(tmp_path / "true" / "labelsTr" / "a.nii.gz")
    save(tmp_path / "true" / "imagesTr" / "a.nii.gz")
    (tmp_path / "true" / "labelsTr" / "._a.nii.gz").write_bytes(b"left by a file system")
    save(tmp_path / "found" / "a.nii.gz")
    found = find_pairs(tmp_path / "true", tmp_path / "found", BRATS)
    assert ([pair.case for pair in found.pairs], found.defects) == (["a"], ())


def test_what_is_wrong_with_names_is_told_apart(tmp_path: Path) -> None:
    for name in ("good", "missing", "twice"):
        save(tmp_path / "true" / f"{name}.nii.gz")
    for name in ("good.nii.gz", "twice.nii.gz", "twice.nii", "extra.nii.gz"):
        save(tmp_path / "found" / name)
    found = find_pairs(tmp_path / "true", tmp_path / "found", BRATS)
    assert found.missing == ("missing",)
    assert [defect.case for defect in found.ambiguous] == ["twice"]
    assert [defect.case for defect in found.defects] == ["extra"]
    assert [pair.case for pair in found.pairs] == ["good", "missing", "twice"]
