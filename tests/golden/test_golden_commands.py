"""The commands `score` and `rank` on files, against values that independent tools computed."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from client.dataset.nifti import grid_of, write_labels

METRICS = ["dice", "sensitivity", "specificity"]


@pytest.fixture
def label_folders(shared: Path, tmp_path: Path) -> Path:
    """Write every golden pair of label maps as NIfTI: reference/<case> and prediction/<case>."""
    for path in sorted((shared / "golden" / "metrics").glob("*.npz")):
        with np.load(path) as arrays:
            z, y, x = arrays["spacing"].tolist()[::-1]
            for name, key in (("reference", "ref"), ("prediction", "pred")):
                labels = np.ascontiguousarray(arrays[key].T)
                grid = grid_of((z, y, x), labels.shape)  # type: ignore[arg-type]
                write_labels(tmp_path / name / f"{path.stem}.nii.gz", labels, grid)
    return tmp_path


@pytest.mark.real_data
@pytest.mark.parametrize(("hd95", "column"), [("pooled", "hd95"), ("max", "hd95_maxdirected")])
def test_score_writes_the_golden_values(run, shared, label_folders: Path, hd95: str, column: str):
    out = label_folders / "scores.csv"
    folders = ["--reference", label_folders / "reference"]
    folders += ["--prediction", label_folders / "prediction"]
    assert run("score", *folders, "-o", out, "--hd95", hd95)[0] == 0

    keys = ["case", "region"]
    expected = pd.read_csv(shared / "golden" / "metrics" / "expected.csv").set_index(keys)
    found = pd.read_csv(out).set_index(keys).loc[expected.index]
    assert len(found) == len(expected) == 54
    for metric in METRICS:
        np.testing.assert_allclose(found[metric], expected[metric], rtol=0, atol=1e-9)
    known = expected[column].notna()  # empty regions have no directed percentiles
    np.testing.assert_allclose(found.hd95[known], expected[column][known], rtol=0, atol=1e-6)


@pytest.mark.real_data
@pytest.mark.parametrize(("ties", "key"), [("min", "brats2020_min"), ("average", "brats_average")])
@pytest.mark.parametrize("number", range(6))
def test_rank_writes_the_golden_values(
    run, shared: Path, tmp_path: Path, number: int, ties: str, key: str
):
    golden = json.loads((shared / "golden" / "ranking.json").read_text())
    problem = golden["problems"][number]
    files = [write_method(tmp_path, problem, index) for index in range(len(problem["algorithms"]))]
    out = tmp_path / "ranking.json"
    assert run("rank", *files, "-o", out, "--ties", ties)[0] == 0

    found, expected = json.loads(out.read_text()), problem["expected"][key]
    assert found["methods"] == problem["algorithms"]
    assert found["mean_rank"] == pytest.approx(expected["mean_rank"], abs=1e-12)
    assert found["score"] == pytest.approx(expected["score"], abs=1e-12)
    assert found["final_rank"] == expected["final_rank"]
    if ties == "min":
        pairs = zip(found["permutation"], problem["expected"]["permutation_min"], strict=True)
        for mine, theirs in pairs:
            assert (mine["a"], mine["b"]) == (theirs["a"], theirs["b"])
            assert mine["p_a_better"] == pytest.approx(theirs["p_a_better"], abs=1e-12)
            assert mine["p_b_better"] == pytest.approx(theirs["p_b_better"], abs=1e-12)


def write_method(folder: Path, problem: dict, index: int) -> Path:
    rows = ["case,region,dice,hd95,sensitivity,specificity"]
    for case, methods in zip(problem["cases"], problem["values"], strict=True):
        values = ["" if v is None or math.isnan(v) else repr(float(v)) for v in methods[index]]
        for region, (dice, hd95) in enumerate(zip(values[:3], values[3:], strict=True)):
            rows.append(f"{case},{('WT', 'TC', 'ET')[region]},{dice},{hd95},,")
    path = folder / f"{problem['algorithms'][index]}.csv"
    path.write_text("\n".join(rows) + "\n")
    return path
