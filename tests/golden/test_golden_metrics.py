"""Dice, HD95, sensitivity and specificity against values that independent tools computed."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.metrics import score_case
from common.surface import Hd95
from common.task import load_task

PRINTED = 1e-9  # relative: the expected values are printed with ten digits
CASES = [
    "c04_dilated1", "c06_eroded1", "c07_eroded2", "c08_missing_ET", "c09_refnoET_FP_large",
    "c10_refnoET_FP_onevoxel", "c11_refnoET_correct", "c12_pred_empty", "c13_all_empty",
    "c15_onevoxel_same", "c16_onevoxel_apart", "c17_onevoxel_vs_tumour", "s01_boxes_identical",
    "s02_boxes_shift_3_0_0", "s03_boxes_aniso", "s04_refnoET_fp", "s05_random_blobs",
    "s06_tiny_3x3x3",
]  # fmt: skip


@pytest.fixture(scope="module")
def expected(shared: Path) -> pd.DataFrame:
    frame = pd.read_csv(shared / "golden" / "metrics" / "expected.csv")
    return frame.set_index(["case", "region"])


@pytest.mark.real_data
def test_no_golden_case_is_left_out(expected: pd.DataFrame) -> None:
    assert sorted(expected.index.unique("case")) == CASES


@pytest.mark.real_data
@pytest.mark.parametrize(("hd95", "column"), [("pooled", "hd95"), ("max", "hd95_maxdirected")])
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_the_golden_values(
    shared: Path, expected: pd.DataFrame, case: str, hd95: Hd95, column: str
) -> None:
    with np.load(shared / "golden" / "metrics" / f"{case}.npz") as arrays:
        reference, prediction = arrays["ref"].T, arrays["pred"].T  # x, y, z to z, y, x
        z, y, x = arrays["spacing"].tolist()[::-1]
    task = load_task("brats-2021")
    scores = score_case(reference, prediction, (z, y, x), task, hd95=hd95)
    assert list(scores) == ["WT", "TC", "ET"]
    for region, score in scores.items():
        row = expected.loc[(case, region)]
        for metric in ("dice", "sensitivity", "specificity"):
            assert getattr(score, metric) == pytest.approx(row[metric], rel=PRINTED, abs=1e-14)
        if not math.isnan(row[column]):  # empty regions have no directed percentiles
            assert score.hd95 == pytest.approx(row[column], rel=PRINTED, abs=1e-14)
