"""Metrics against values that independent tools computed.

The lesion-wise values were made for these tests with the published script of BraTS 2023 (Saluja et
al.), label 4 written as 3; a pair that is not listed is perfect there, Dice 1 and HD95 0.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from common.evaluation.lesion_rules import LESION_RULES, LesionRulesName
from common.evaluation.lesions import score_lesions
from common.evaluation.metrics import score_case
from common.evaluation.surface import Hd95
from common.task import load_task, regions_of

PRINTED = 1e-9  # relative: the expected values are printed with ten digits
CASES = [
    "c04_dilated1", "c06_eroded1", "c07_eroded2", "c08_missing_ET", "c09_refnoET_FP_large",
    "c10_refnoET_FP_onevoxel", "c11_refnoET_correct", "c12_pred_empty", "c13_all_empty",
    "c15_onevoxel_same", "c16_onevoxel_apart", "c17_onevoxel_vs_tumour", "s01_boxes_identical",
    "s02_boxes_shift_3_0_0", "s03_boxes_aniso", "s04_refnoET_fp", "s05_random_blobs",
    "s06_tiny_3x3x3",
]  # fmt: skip

LESION_WISE: dict[tuple[str, LesionRulesName], dict[str, tuple[float, float, int, int, int]]] = {
    ("c04_dilated1", "glioma"): {
        "WT": (0.9242689141721446, 1.0, 1, 0, 0),
        "TC": (0.9083797893991682, 1.0, 1, 0, 0),
        "ET": (0.8774102977001528, 2.0, 1, 0, 0),
    },
    ("c04_dilated1", "metastases"): {
        "WT": (0.9242689141721446, 1.0, 1, 0, 0),
        "TC": (0.9083797893991682, 1.0, 1, 0, 0),
        "ET": (0.8774102977001528, 2.0, 1, 0, 0),
    },
    ("c06_eroded1", "glioma"): {
        "WT": (0.9442960516730611, 1.0, 1, 0, 0),
        "TC": (0.920221292076397, 1.4142135623730951, 1, 0, 0),
        "ET": (0.7866692772432311, 3.0, 1, 0, 0),
    },
    ("c06_eroded1", "metastases"): {
        "WT": (0.9442960516730611, 1.0, 1, 0, 0),
        "TC": (0.920221292076397, 1.4142135623730951, 1, 0, 0),
        "ET": (0.7866692772432311, 3.0, 1, 0, 0),
    },
    ("c07_eroded2", "glioma"): {
        "WT": (0.8132905806907101, 6.4031242374328485, 1, 0, 0),
        "TC": (0.7988961710934805, 11.704699910719626, 1, 0, 0),
        "ET": (0.16395738508477967, 12.727922061357855, 1, 0, 0),
    },
    ("c07_eroded2", "metastases"): {
        "WT": (0.6684093179494635, 4.854101966249685, 2, 0, 0),
        "TC": (0.7988961710934805, 11.704699910719626, 1, 0, 0),
        "ET": (0.16395738508477967, 12.727922061357855, 1, 0, 0),
    },
    ("c08_missing_ET", "glioma"): {
        "ET": (0.0, 374.0, 0, 1, 0),
    },
    ("c08_missing_ET", "metastases"): {
        "ET": (0.0, 374.0, 0, 1, 0),
    },
    ("c09_refnoET_FP_large", "glioma"): {
        "ET": (0.0, 374.0, 0, 0, 13),
    },
    ("c09_refnoET_FP_large", "metastases"): {
        "ET": (0.0, 374.0, 0, 0, 13),
    },
    ("c10_refnoET_FP_onevoxel", "glioma"): {
        "ET": (0.0, 374.0, 0, 0, 1),
    },
    ("c10_refnoET_FP_onevoxel", "metastases"): {
        "ET": (0.0, 374.0, 0, 0, 1),
    },
    ("c11_refnoET_correct", "glioma"): {
        "WT": (0.9039190897597977, 1.4142135623730951, 1, 0, 0),
        "TC": (0.8862501656872708, 1.4142135623730951, 1, 0, 0),
    },
    ("c11_refnoET_correct", "metastases"): {
        "WT": (0.286792552512629, 249.80473785412437, 2, 0, 4),
        "TC": (0.17726178114574817, 299.4828427124746, 1, 0, 4),
    },
    ("c12_pred_empty", "glioma"): {
        "WT": (0.0, 374.0, 0, 1, 0),
        "TC": (0.0, 374.0, 0, 1, 0),
        "ET": (0.0, 374.0, 0, 1, 0),
    },
    ("c12_pred_empty", "metastases"): {
        "WT": (0.0, 374.0, 0, 2, 0),
        "TC": (0.0, 374.0, 0, 1, 0),
        "ET": (0.0, 374.0, 0, 1, 0),
    },
    ("c16_onevoxel_apart", "glioma"): {
        "WT": (0.0, 374.0, 0, 0, 1),
        "TC": (0.0, 374.0, 0, 0, 1),
        "ET": (0.0, 374.0, 0, 0, 1),
    },
    ("c16_onevoxel_apart", "metastases"): {
        "WT": (0.0, 374.0, 0, 0, 1),
        "TC": (0.0, 374.0, 0, 0, 1),
        "ET": (0.0, 374.0, 0, 0, 1),
    },
    ("c17_onevoxel_vs_tumour", "glioma"): {
        "WT": (1.657344106070023e-05, 53.376024580330075, 1, 0, 0),
        "TC": (2.6499894000423998e-05, 48.67237409455183, 1, 0, 0),
        "ET": (0.00011225234326766571, 46.65833258915282, 1, 0, 0),
    },
    ("c17_onevoxel_vs_tumour", "metastases"): {
        "WT": (1.657344106070023e-05, 53.376024580330075, 1, 0, 0),
        "TC": (2.6499894000423998e-05, 48.67237409455183, 1, 0, 0),
        "ET": (0.00011225234326766571, 46.65833258915282, 1, 0, 0),
    },
    ("s02_boxes_shift_3_0_0", "glioma"): {
        "WT": (0.7, 3.0, 1, 0, 0),
        "TC": (0.5, 3.0, 1, 0, 0),
    },
    ("s02_boxes_shift_3_0_0", "metastases"): {
        "WT": (0.7, 3.0, 1, 0, 0),
        "TC": (0.5, 3.0, 1, 0, 0),
        "ET": (0.0, 374.0, 0, 1, 1),
    },
    ("s03_boxes_aniso", "glioma"): {
        "WT": (0.72, 6.0, 1, 0, 0),
        "TC": (0.5555555555555556, 6.0, 1, 0, 0),
    },
    ("s03_boxes_aniso", "metastases"): {
        "WT": (0.72, 6.0, 1, 0, 0),
        "TC": (0.5555555555555556, 6.0, 1, 0, 0),
        "ET": (0.0, 6.082762530298219, 1, 0, 0),
    },
    ("s04_refnoET_fp", "glioma"): {
        "WT": (0.5, 187.0, 1, 0, 1),
        "TC": (0.5, 187.0, 1, 0, 1),
        "ET": (0.0, 374.0, 0, 0, 1),
    },
    ("s04_refnoET_fp", "metastases"): {
        "WT": (0.5, 187.0, 1, 0, 1),
        "TC": (0.5, 187.0, 1, 0, 1),
        "ET": (0.0, 374.0, 0, 0, 1),
    },
    ("s05_random_blobs", "glioma"): {
        "WT": (0.36336842105263156, 188.0, 1, 0, 1),
        "TC": (0.6161616161616161, 4.123105625617661, 1, 0, 0),
        "ET": (0.4468919152220496, 127.0, 2, 0, 1),
    },
    ("s05_random_blobs", "metastases"): {
        "WT": (0.3909316896824837, 126.0, 2, 0, 1),
        "TC": (0.34556790238770574, 113.32418888557474, 5, 1, 1),
        "ET": (0.30703665397542945, 163.95374063907292, 4, 1, 2),
    },
}  # region: Dice, HD95, lesions found, missed, false


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


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["glioma", "metastases"])
@pytest.mark.parametrize("case", CASES)
def test_lesion_wise_scores_equal_those_of_the_published_script(
    shared: Path, case: str, name: LesionRulesName
) -> None:
    with np.load(shared / "golden" / "metrics" / f"{case}.npz") as arrays:
        z, y, x = arrays["spacing"].tolist()[::-1]
        task = load_task("brats-2021")
        masks = [regions_of(np.ascontiguousarray(arrays[key].T), task) for key in ("ref", "pred")]
    for region, true, predicted in zip(task.regions, *masks, strict=True):
        found = score_lesions(true, predicted, (z, y, x), LESION_RULES[name])
        listed = LESION_WISE.get((case, name), {}).get(region)
        dice, hd95, *numbers = listed or (1.0, 0.0)
        assert found.dice == pytest.approx(dice, abs=1e-9)
        assert found.hd95 == pytest.approx(hd95, abs=1e-6)
        if listed:
            assert [found.n_found, found.n_missed, found.n_false] == numbers
        else:
            assert (found.n_missed, found.n_false) == (0, 0)
