"""What a user sees after a mistake: exit code 2, clear lines, no traceback, no half files."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from client.dataset.nifti import Grid, grid_of, write_image, write_labels
from common.codec import encode
from common.config import Simulation

Run = Callable[..., tuple[int, str, str]]
CASES = ("case_a", "case_b", "case_c")
GRID = grid_of((1.0, 1.0, 1.0), (8, 9, 10))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    rng = np.random.default_rng(1)
    for case in CASES:
        for channel in ("t1", "t1ce", "t2", "flair"):
            image = rng.random((8, 9, 10), np.float32) + 1
            write_image(folder / case / f"{case}_{channel}.nii.gz", image, GRID)
        write_seg(folder, case, 4, GRID)
    return folder


@pytest.fixture
def config(tmp_path: Path, tiny_study) -> dict:
    partition = Simulation(sizes={"one": 1, "two": 2})
    return encode(tiny_study.config_with(simulation=partition))


def write_seg(folder: Path, case: str, label: int, grid: Grid) -> None:
    labels = np.zeros(grid.shape_zyx, np.uint8)
    labels[2:5, 2:5, 2:5] = label
    write_labels(folder / case / f"{case}_seg.nii.gz", labels, grid)


def refused(result: tuple[int, str, str]) -> str:
    """Check what holds for every mistake and return the text for the user."""
    code, _, stderr = result
    assert code == 2, stderr
    assert "Traceback" not in stderr
    return stderr


def test_a_missing_folder_is_named(run: Run, tmp_path: Path):
    text = refused(run("inspect", tmp_path / "nowhere"))
    assert str(tmp_path / "nowhere") in text


def test_all_defects_of_all_cases_are_listed_in_one_run(run: Run, data: Path):
    (data / "case_a" / "case_a_t2.nii.gz").unlink()
    truncated = data / "case_b" / "case_b_flair.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:200])
    write_seg(data, "case_b", 3, GRID)
    image = np.full((8, 9, 10), np.nan, np.float32)
    write_image(data / "case_c" / "case_c_t1.nii.gz", image, GRID)
    shifted = Grid(GRID.affine + np.diag([0, 0, 0, 0]) + np.eye(4, k=3) * 2, GRID.shape)
    write_seg(data, "case_c", 4, shifted)

    text = refused(run("inspect", data))

    lines = [line for line in text.splitlines() if "expected" in line]
    assert any("case_a" in line and "t2" in line for line in lines)
    assert any("case_b_flair.nii.gz" in line for line in lines)
    assert any("case_b_seg.nii.gz" in line and "found 3" in line for line in lines)
    assert any("case_c_t1.nii.gz" in line and "NaN" in line for line in lines)
    assert any("case_c_seg.nii.gz" in line and "grid of" in line for line in lines)


def test_a_label_of_another_shape_is_a_defect(run: Run, data: Path):
    write_seg(data, "case_a", 4, grid_of((1.0, 1.0, 1.0), (8, 9, 11)))
    assert "case_a_seg.nii.gz" in refused(run("inspect", data))


def test_what_is_suspicious_is_said_after_the_summary_and_refuses_nothing(
    run: Run, data: Path, tmp_path: Path
):
    write_seg(data, "case_b", 0, GRID)
    report = tmp_path / "report.html"
    code, stdout, stderr = run("inspect", data, "--report", report, "--workers", 2)
    assert code == 0
    assert stdout == f"{data}: 3 cases of task brats-2021, no defects\n"
    seg = data / "case_b" / "case_b_seg.nii.gz"
    assert f"warning: case_b: {seg}: a label without foreground; right for" in stderr
    assert f"{report}: 3 cases with pictures; it shows patients and stays here" in stderr
    assert "This page stays at the hospital." in report.read_text()

    code, stdout, _ = run("inspect", data, "--json")
    assert code == 0
    assert [one["case"] for one in json.loads(stdout)["warnings"]] == ["case_b"]


def test_a_table_of_patients_without_its_columns_is_refused(run: Run, data: Path, tmp_path: Path):
    (tmp_path / "patients.csv").write_text("case,patient\ncase_a,1\n")
    text = refused(run("inspect", data, "--patients", tmp_path / "patients.csv"))
    assert "expected a column Subject_ID, found case, patient" in text


def test_simulate_refuses_defective_data_before_anything_is_written(
    run: Run, data: Path, config: dict, tmp_path: Path
):
    shutil.rmtree(data / "case_c")
    (data / "case_a" / "case_a_t1.nii.gz").unlink()
    out = tmp_path / "out"
    text = refused(run("simulate", written(config, tmp_path), "--data", data, "--out", out))
    assert "case_a" in text
    assert not out.exists()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("training", "lerning_rate"), 0.1, "did you mean 'learning_rate'"),
        (("training", "learning_rate"), -0.1, "training.learning_rate: expected greater than 0"),
        (("training", "learning_rate"), "0.1", "training.learning_rate"),
        (("federation", "methods"), ["fedavgg"], "federation.methods"),
        (("federation", "held_out"), ["nobody"], "'nobody' is no site"),
        (("federation", "min_sites"), 3, "federation.min_sites: expected at most 2"),
        (("simulation", "sizes"), {"one": 1, "two": 9}, "expected a sum of 1 to 3"),
        (("simulation", "sizes"), {"one": 0, "two": 3}, "simulation.sizes.one"),
        (("task",), "brats-2020", "brats-2020"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_with_its_path(
    run: Run, data: Path, config: dict, tmp_path: Path, path: tuple, value: object, expected: str
):
    table = config
    for part in path[:-1]:
        table = table[part]
    table[path[-1]] = value
    out = tmp_path / "out"
    text = refused(run("simulate", written(config, tmp_path), "--data", data, "--out", out))
    assert expected in text
    assert not out.exists()


def test_a_csv_that_leaves_a_site_without_its_cases_is_refused(
    run: Run, data: Path, config: dict, tmp_path: Path
):
    (tmp_path / "sites.csv").write_text("Partition_ID,Subject_ID\n1,case_a\n2,case_x\n")
    config["simulation"] = {"csv": "sites.csv"}
    out = tmp_path / "out"
    text = refused(run("simulate", written(config, tmp_path), "--data", data, "--out", out))
    assert "case_x" in text
    assert not out.exists()


def test_several_mistakes_in_one_configuration_are_reported_together(
    run: Run, data: Path, config: dict, tmp_path: Path
):
    config["training"]["learning_rate"] = -1
    config["model"]["norm"] = "layer"
    text = refused(run("simulate", written(config, tmp_path), "--data", data))
    assert "training.learning_rate" in text
    assert "model.norm" in text


def test_an_existing_run_is_not_overwritten(run: Run, data: Path, config: dict, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "events.jsonl").write_text("")
    path = written(config, tmp_path)
    assert "--resume" in refused(run("simulate", path, "--data", data, "--out", out))


def test_resuming_what_never_ran_is_refused(run: Run, data: Path, config: dict, tmp_path: Path):
    path = written(config, tmp_path)
    text = refused(run("simulate", path, "--data", data, "--out", tmp_path / "x", "--resume"))
    assert "found none" in text


def test_a_report_of_no_run_is_refused(run: Run, tmp_path: Path):
    assert str(tmp_path) in refused(run("report", tmp_path))


def test_scores_of_a_missing_folder_are_refused_and_nothing_is_written(run: Run, tmp_path: Path):
    out = tmp_path / "scores.csv"
    arguments = ("--reference", tmp_path / "a", "--prediction", tmp_path / "b", "-o", out)
    assert str(tmp_path / "a") in refused(run("score", *arguments))
    assert not out.exists()


def test_an_empty_folder_of_predictions_is_no_submission(run: Run, data: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "scores.csv"
    arguments = ("--reference", data, "--prediction", tmp_path / "empty", "-o", out)
    assert "found none" in refused(run("score", *arguments))
    assert not out.exists()


def test_cases_without_a_prediction_are_counted_aloud(run: Run, data: Path, tmp_path: Path):
    (tmp_path / "some").mkdir()
    shutil.copy(data / "case_a" / "case_a_seg.nii.gz", tmp_path / "some" / "case_a.nii.gz")
    out = tmp_path / "scores.csv"
    code, stdout, _ = run(
        "score", "--reference", data, "--prediction", tmp_path / "some", "-o", out
    )
    assert code == 0
    assert "3 cases, 2 of them without a prediction" in stdout


def test_a_plan_of_a_truncated_fingerprint_is_refused(run: Run, tmp_path: Path):
    broken = tmp_path / "fingerprint.json"
    broken.write_text('{"schema": 1,')
    assert "expected JSON" in refused(run("plan", broken, "-o", tmp_path / "plan.json"))
    assert not (tmp_path / "plan.json").exists()


def written(config: dict, folder: Path) -> Path:
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(config))
    return path


def test_ctrl_c_ends_with_one_line_that_says_what_is_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "consilium", "demo", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()  # it is at work
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130
    assert first.startswith("draw phantoms")
    assert words.splitlines()[-1] == "consilium: stopped; what was finished is kept"
    assert "Traceback" not in words
