"""Models predict images of any orientation, alone or together, and write what was asked for."""

import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from safetensors.numpy import save_file

from client.dataset.layouts import describe
from client.fingerprint.measure import measure
from common.batchnorm import local_names
from common.codec import write_json, write_toml
from common.config import RunConfig
from common.network import build_network, initial_weights
from common.planning.plan import configuration_of
from common.planning.planner import plan_run
from common.task import labels_of, load_task

FLIPPED = "phantom_0001"
Run = Callable[..., tuple[int, str, str]]


def write_run(folder: Path, config: RunConfig, data: Path, seed: int) -> Path:
    """Write a finished run whose model never trained: its labels are nonsense, but some."""
    task = load_task(config.task)
    plan = plan_run(measure(describe(data, task), task), config)
    network = build_network(task, configuration_of(plan, "3d_fullres"), config.model)
    weights, kept = initial_weights(network, seed), local_names(network, config.model.batch_norm)
    (folder / "models").mkdir(parents=True)
    sent = {name: tensor for name, tensor in weights.items() if name not in kept}
    save_file(sent, folder / "models" / "fedavg.safetensors")
    write_toml(folder / "config.toml", config)
    write_toml(folder / "task.toml", task)
    write_json(folder / "plan.json", plan)
    return folder


@pytest.fixture(scope="module")
def trained(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    return write_run(folder, tiny_study.config, tiny_study.data, 1)


@pytest.fixture(scope="module")
def other(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of other rules: another patch, and logits are averaged over its tiles."""
    config = tiny_study.config
    config = replace(config, planning=replace(config.planning, rules="v2"))
    return write_run(tmp_path_factory.mktemp("other") / "run", config, tiny_study.data, 2)


@pytest.fixture
def images(tiny_study, tmp_path: Path) -> Path:
    """Return a folder of two cases without labels."""
    for name in (FLIPPED, "phantom_0002"):
        for path in (tiny_study.data / name).glob("*.nii.gz"):
            if "seg" not in path.name:
                target = tmp_path / "images" / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
    return tmp_path / "images"


def reoriented(source: Path, target: Path) -> None:
    """Write an image as PIR: other axis order, two axes reversed; the same place in space."""
    image = nibabel.load(source)
    wanted = nibabel.orientations.axcodes2ornt(("P", "I", "R"))
    have = nibabel.orientations.io_orientation(image.affine)
    target.parent.mkdir(parents=True, exist_ok=True)
    turn = nibabel.orientations.ornt_transform(have, wanted)
    nibabel.save(image.as_reoriented(turn), target)


def done(result: tuple[int, str, str]) -> str:
    code, stdout, stderr = result
    assert code == 0, stderr
    return stdout + stderr


def refused(result: tuple[int, str, str]) -> str:
    """Check what holds for every mistake and return the text for the user."""
    code, _, stderr = result
    assert code == 2, stderr
    assert "Traceback" not in stderr
    return stderr


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj)


def niftis(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.nii.gz"))


def test_a_prediction_lies_in_the_grid_and_orientation_of_its_image(
    run: Run, trained: Path, tiny_study, tmp_path: Path
):
    for path in (tiny_study.data / FLIPPED).glob("*.nii.gz"):
        reoriented(path, tmp_path / "turned" / FLIPPED / path.name)
        straight = tmp_path / "straight" / FLIPPED / path.name
        straight.parent.mkdir(parents=True, exist_ok=True)
        straight.write_bytes(path.read_bytes())

    found = {}
    for name in ("straight", "turned"):
        out = tmp_path / f"predicted-{name}"
        done(run("predict", "--model", trained, "--input", tmp_path / name, "--output", out))
        found[name] = nibabel.load(out / f"{FLIPPED}.nii.gz")

    image = nibabel.load(tmp_path / "turned" / FLIPPED / f"{FLIPPED}_flair.nii.gz")
    assert nibabel.aff2axcodes(found["turned"].affine) == ("P", "I", "R")
    np.testing.assert_allclose(found["turned"].affine, image.affine, atol=1e-5)
    assert found["turned"].shape == image.shape
    canonical = [np.asarray(nibabel.as_closest_canonical(f).dataobj) for f in found.values()]
    np.testing.assert_array_equal(canonical[0], canonical[1])
    assert set(np.unique(canonical[0])) <= {0, 1, 2, 4}
    assert canonical[0].any()


def test_several_models_are_averaged_and_their_maps_lie_in_the_images_grid(
    run: Run, trained: Path, other: Path, images: Path, tmp_path: Path
):
    wanted = ("--probabilities", "--uncertainty", "--precision", "float32")
    outputs = {}
    for name, models in {"a": [trained], "b": [other], "both": [trained, other]}.items():
        outputs[name] = tmp_path / name
        chosen = [part for model in models for part in ("--model", model)]
        done(run("predict", *chosen, "--input", images, "--output", outputs[name], *wanted))

    maps = [f"maps/probability/{FLIPPED}_{region}.nii.gz" for region in ("ET", "TC", "WT")]
    assert {*maps, f"maps/uncertainty/{FLIPPED}.nii.gz"} <= set(niftis(outputs["both"]))
    assert len(niftis(outputs["both"])) == 2 * (1 + 1 + 3)
    image = nibabel.load(images / FLIPPED / f"{FLIPPED}_t1.nii.gz")
    whole_tumour = nibabel.load(outputs["both"] / maps[2])
    np.testing.assert_allclose(whole_tumour.affine, image.affine, atol=1e-5)
    assert whole_tumour.get_data_dtype() == np.uint8
    for path in maps:
        one, another, mean = (voxels(outputs[name] / path) for name in ("a", "b", "both"))
        assert mean.max() < 1.000001  # the slope of the file is a float32
        np.testing.assert_allclose(mean, (one + another) / 2, atol=1.01 / 255)
    means = np.stack([voxels(outputs["both"] / path) for path in reversed(maps)])  # WT, TC, ET
    sure = (np.abs(means - 0.5) > 1 / 255).all(axis=0)
    decided = labels_of(means > 0.5, load_task("brats-2021"))
    labels = voxels(outputs["both"] / f"{FLIPPED}.nii.gz")
    assert np.array_equal(labels[sure], decided[sure])
    assert np.mean(sure) > 0.5
    uncertainty = nibabel.load(outputs["both"] / f"maps/uncertainty/{FLIPPED}.nii.gz")
    assert uncertainty.get_data_dtype() == np.float32
    values = np.asarray(uncertainty.dataobj)
    assert 0 < values.max() <= 1


def test_maps_beside_predictions_are_not_scored(
    run: Run, trained: Path, tiny_study, tmp_path: Path
):
    out, table = tmp_path / "out", tmp_path / "scores.csv"
    done(run("predict", "--model", trained, "--input", tiny_study.data, "--output", out,
             "--uncertainty", "--probabilities", "--no-mirroring"))  # fmt: skip
    text = done(run("score", "--reference", tiny_study.data, "--prediction", out, "-o", table))
    assert "7 cases; HD95" in text


def test_a_stopped_prediction_goes_on_with_what_is_missing(
    run: Run, trained: Path, images: Path, tmp_path: Path
):
    out = tmp_path / "out"
    command = ("predict", "--model", trained, "--input", images, "--output", out)
    done(run(*command))
    kept, lost = out / f"{FLIPPED}.nii.gz", out / "phantom_0002.nii.gz"
    before, was = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    done(run(*command, "--continue"))
    assert kept.stat().st_mtime_ns == before
    assert lost.read_bytes() == was  # batch norm was calibrated on all images again
    assert "every case is done already" in done(run(*command, "--continue"))
    assert kept.stat().st_mtime_ns == before
    done(run(*command, "--continue", "--uncertainty"))  # a map is missing in every case
    assert (out / "maps" / "uncertainty" / f"{FLIPPED}.nii.gz").exists()
    done(run(*command))
    assert kept.stat().st_mtime_ns > before


def test_predictions_of_other_models_are_not_gone_on_with(
    run: Run, trained: Path, other: Path, images: Path, tmp_path: Path
):
    out = tmp_path / "out"
    folders = ("--input", images, "--output", out)
    done(run("predict", "--model", trained, *folders))
    text = refused(run("predict", "--model", other, *folders, "--continue"))
    assert "prediction.json: expected predictions of the same models" in text
    text = refused(run("predict", "--model", trained, *folders, "--continue", "--mirroring"))
    assert "prediction.json: expected predictions of the same models" in text
    (out / "prediction.json").unlink()
    text = refused(run("predict", "--model", trained, *folders, "--continue"))
    assert "expected prediction.json" in text


def test_an_unknown_method_is_refused_with_the_known_ones(run: Run, trained: Path, tmp_path: Path):
    out = tmp_path / "out"
    folders = ["--input", tmp_path, "--output", out]
    text = refused(run("predict", "--model", trained, *folders, "--method", "fedprox"))
    assert "expected one of fedavg" in text
    assert not out.exists()


def test_a_folder_that_is_no_run_is_refused(run: Run, tmp_path: Path):
    folders = ["--input", tmp_path, "--output", tmp_path / "out"]
    assert "expected a finished run" in refused(run("predict", "--model", tmp_path, *folders))


def test_a_wrong_input_folder_is_named(run: Run, trained: Path, tmp_path: Path):
    out = tmp_path / "out"
    folders = ["--input", tmp_path / "nowhere", "--output", out]
    assert "nowhere" in refused(run("predict", "--model", trained, *folders))
    assert not out.exists()


def test_a_missing_modality_is_named_before_anything_is_written(
    run: Run, trained: Path, images: Path, tmp_path: Path
):
    (images / "phantom_0002" / "phantom_0002_t2.nii.gz").unlink()
    out = tmp_path / "out"
    text = refused(run("predict", "--model", trained, "--input", images, "--output", out))
    assert "phantom_0002" in text
    assert "channel t2" in text
    assert not out.exists()


def test_data_of_other_channels_or_labels_than_the_models_is_refused(
    run: Run, trained: Path, images: Path, tmp_path: Path
):
    data = tmp_path / "decathlon"
    (data / "imagesTr").mkdir(parents=True)
    image = next(iter((images / FLIPPED).glob("*_t1.nii.gz")))
    shutil.copy(image, data / "imagesTr" / "case.nii.gz")
    (data / "dataset.json").write_text(
        '{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "a", "7": "b"}}'
    )
    text = refused(run("predict", "--model", trained, "--input", data, "--output", tmp_path / "o"))
    assert "expected the channels t1, t1ce, t2, flair of task brats-2021, found mri" in text
    assert "expected the labels 0, 1, 2, 4 of task brats-2021, found 7 as well" in text
    assert not (tmp_path / "o").exists()


def test_models_of_different_tasks_or_outputs_are_no_ensemble(
    run: Run, trained: Path, tiny_study, images: Path, tmp_path: Path
):
    task = load_task("brats-2021")
    swapped = replace(task, channels=("t1ce", "t1", "t2", "flair"))
    fewer = replace(tiny_study.config.model, output="labels")
    cases = {
        "channels": lambda folder: write_toml(folder / "task.toml", swapped),
        "model.output": lambda folder: write_toml(
            folder / "config.toml", replace(tiny_study.config, model=fewer)
        ),
    }
    for what, change in cases.items():
        folder = tmp_path / f"run-{what}"
        shutil.copytree(trained, folder)
        change(folder)
        text = refused(
            run(
                "predict",
                "--model",
                trained,
                "--model",
                folder,
                "--input",
                images,
                "--output",
                tmp_path / "out",
            )
        )
        assert f"--model: run-{what}: expected the {what} of run" in text
        assert len(text.splitlines()) == 1


def test_the_input_folder_is_no_output_folder(run: Run, trained: Path, images: Path):
    before = niftis(images)
    for output in (images, images / FLIPPED, images / "predictions"):
        text = refused(run("predict", "--model", trained, "--input", images, "--output", output))
        assert "belongs to the input; expected another folder" in text
        assert len(text.splitlines()) == 1
    assert niftis(images) == before


def test_predictions_never_take_the_place_of_images_or_references(
    run: Run, trained: Path, tiny_study, tmp_path: Path
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
    command = ("predict", "--model", trained, "--input", flat, "--output", link.parent)
    assert "is part of the input" in refused(run(*command))
    assert label.read_bytes() == before


@pytest.fixture
def small_files(trained: Path, images: Path) -> Iterator[None]:
    """Let no file become larger than 1000 bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_clear_line_and_leaves_no_half_files(
    run: Run, trained: Path, images: Path, tmp_path: Path
):
    out = tmp_path / "out"
    text = refused(
        run("predict", "--model", trained, "--input", images, "--output", out, "--uncertainty")
    )
    last = text.splitlines()[-1]
    assert "cannot be written: File too large" in last
    assert str(out) in last
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["prediction.json"]
