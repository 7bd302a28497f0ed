"""A trained run predicts images of any orientation and writes them in their own grid."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.codec import write_toml
from common.config import Simulation

FLIPPED = "phantom_0001"


@pytest.fixture(scope="module")
def trained(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from server.events import EventLog
    from server.run_folder import RunFolder
    from simulation.simulate import load_study, simulate

    home = tmp_path_factory.mktemp("trained")
    config = tiny_study.config_with(simulation=Simulation(csv="partition.csv"))
    write_toml(tiny_study.data / "predict.toml", config)
    study = load_study(tiny_study.data / "predict.toml", tiny_study.data)
    folder = RunFolder(home / "run")
    simulate(study, folder, EventLog(folder.events))
    return folder.path


def reoriented(source: Path, target: Path) -> None:
    """Write an image as PIR: other axis order, two axes reversed; the same place in space."""
    image = nibabel.load(source)
    wanted = nibabel.orientations.axcodes2ornt(("P", "I", "R"))
    have = nibabel.orientations.io_orientation(image.affine)
    target.parent.mkdir(parents=True, exist_ok=True)
    turn = nibabel.orientations.ornt_transform(have, wanted)
    nibabel.save(image.as_reoriented(turn), target)


def test_a_prediction_lies_in_the_grid_and_orientation_of_its_image(
    run, trained: Path, tiny_study, tmp_path: Path
):
    for path in (tiny_study.data / FLIPPED).glob("*.nii.gz"):
        reoriented(path, tmp_path / "turned" / FLIPPED / path.name)
        straight = tmp_path / "straight" / FLIPPED / path.name
        straight.parent.mkdir(parents=True, exist_ok=True)
        straight.write_bytes(path.read_bytes())

    found = {}
    for name in ("straight", "turned"):
        out = tmp_path / f"predicted-{name}"
        folders = ["--input", tmp_path / name, "--output", out]
        code, _, stderr = run("predict", "--model", trained, *folders)
        assert code == 0, stderr
        found[name] = nibabel.load(out / f"{FLIPPED}.nii.gz")

    image = nibabel.load(tmp_path / "turned" / FLIPPED / f"{FLIPPED}_flair.nii.gz")
    assert nibabel.aff2axcodes(found["turned"].affine) == ("P", "I", "R")
    np.testing.assert_allclose(found["turned"].affine, image.affine, atol=1e-5)
    assert found["turned"].shape == image.shape
    canonical = [np.asarray(nibabel.as_closest_canonical(f).dataobj) for f in found.values()]
    np.testing.assert_array_equal(canonical[0], canonical[1])
    assert set(np.unique(canonical[0])) <= {0, 1, 2, 4}


def test_an_unknown_method_is_refused_with_the_known_ones(run, trained: Path, tmp_path: Path):
    out = tmp_path / "out"
    folders = ["--input", tmp_path, "--output", out]
    code, _, stderr = run("predict", "--model", trained, *folders, "--method", "fedprox")
    assert code == 2
    assert "expected one of fedavg" in stderr
    assert not out.exists()


def test_a_folder_that_is_no_run_is_refused(run, tmp_path: Path):
    folders = ["--input", tmp_path, "--output", tmp_path / "out"]
    code, _, stderr = run("predict", "--model", tmp_path, *folders)
    assert code == 2
    assert "expected a finished run" in stderr


def test_predictions_never_take_the_place_of_images_or_references(
    run, trained: Path, tiny_study, tmp_path: Path
):
    flat = tmp_path / "flat"
    shutil.copytree(tiny_study.data / FLIPPED, flat / FLIPPED)
    label = flat / FLIPPED / f"{FLIPPED}_seg.nii.gz"
    label.rename(flat / FLIPPED / f"{FLIPPED}.nii.gz")  # a site's own habit of naming
    shutil.copy(flat / FLIPPED / f"{FLIPPED}.nii.gz", label)
    before = label.read_bytes()
    link = tmp_path / "out" / f"{FLIPPED}.nii.gz"
    link.parent.mkdir()
    link.symlink_to(label)
    code, _, stderr = run("predict", "--model", trained, "--input", flat, "--output", link.parent)
    assert code == 2
    assert "is part of the input" in stderr
    assert label.read_bytes() == before
