"""Which cases are listed with what, and what is refused."""

import math
from pathlib import Path

import pytest

from client.viewer.listing import Listing, list_cases
from client.viewer.order import worst_first
from common.errors import ConfigError, DataError
from common.evaluation.empty_rules import RegionScore
from common.evaluation.scores import ScoringDefinition, write_scores
from common.task import load_task

BRATS = load_task("brats-2021")
DEFINITION = ScoringDefinition(
    task="brats-2021", hd95="pooled", hd95_one_empty_mm=373.13, hd95_missing_case_mm=374.0
)


def listed(data: Path, prediction: Path | None = None, scores: Path | None = None) -> Listing:
    return list_cases(data, BRATS, prediction, scores, lambda *_: None)


def written(path: Path, dice: dict[str, dict[str, float]]) -> Path:
    table = {
        case: {
            region: RegionScore(value, 10 - 9 * value, 0.5, 1.0) for region, value in row.items()
        }
        for case, row in dice.items()
    }
    write_scores(path, table, DEFINITION)
    return path


@pytest.fixture(scope="module")
def scored(cases) -> Listing:
    return listed(cases.data, cases.predictions)


def test_without_a_file_of_scores_the_cases_are_scored_and_the_worst_comes_first(scored):
    rows = worst_first(scored, "dice", None)
    names = [row.name for row in rows]
    assert names == ["elsewhere", "missing", "moved", "false-alarm", "perfect", "open"]
    assert [row.value for row in rows][:2] == [0.0, 0.0]
    assert rows[4].value == 1.0
    assert rows[5].value is None


def test_remarks_say_what_is_missing_empty_or_unusable(scored):
    remarks = {row.name: row.remarks for row in worst_first(scored, "dice", None)}
    assert remarks == {
        "elsewhere": ("unusable labels",),
        "false-alarm": ("reference without ET",),
        "missing": ("no prediction",),
        "moved": (),
        "open": ("no reference",),
        "perfect": (),
    }
    assert "shape 9x5x3 instead of 9x5x4" in scored.cases[0].faults[0]


def test_numbers_are_places_in_the_sorted_listing_whatever_the_order(scored):
    numbers = {row.name: row.number for row in worst_first(scored, "hd95", "ET")}
    assert [numbers[one.case.name] for one in scored.cases] == [0, 1, 2, 3, 4, 5]


def test_one_region_and_another_metric_give_another_order(cases, tmp_path):
    path = written(
        tmp_path / "scores.csv",
        {"moved": {"WT": 0.2, "TC": 0.9, "ET": 0.9}, "perfect": {"WT": 0.9, "TC": 0.9, "ET": 0.1}},
    )
    found = listed(cases.data, cases.predictions, path)

    def first(metric: str, region: str | None) -> tuple[str, float | None]:
        row = worst_first(found, metric, region)[0]
        return row.name, row.value

    assert first("dice", None) == ("perfect", pytest.approx(0.6333, abs=1e-4))
    assert first("dice", "WT") == ("moved", 0.2)
    assert first("hd95", "ET") == ("perfect", pytest.approx(9.1))  # of HD95 much is bad


def test_a_file_of_scores_is_taken_as_it_is_and_says_where_the_reference_is_empty(cases, tmp_path):
    dice = {
        "false-alarm": {"WT": 1.0, "TC": 0.5, "ET": 0.0},
        "moved": {"WT": 0.0, "TC": 0, "ET": 0},
    }
    found = listed(cases.data, None, written(tmp_path / "scores.csv", dice))
    by_name = {one.case.name: one for one in found.cases}
    assert by_name["false-alarm"].values["ET"]["dice"] == 0.0
    assert by_name["false-alarm"].empty == ("ET",)
    assert by_name["moved"].empty == ()
    assert by_name["perfect"].values == {}


def test_a_value_that_is_missing_comes_behind_every_other(cases, tmp_path):
    dice = {"moved": {"WT": math.nan}, "perfect": {"WT": 0.99}}
    found = listed(cases.data, None, written(tmp_path / "scores.csv", dice))
    assert next(row.name for row in worst_first(found, "dice", None)) == "perfect"


def test_without_predictions_and_scores_cases_are_listed_by_name(cases):
    found = listed(cases.data)
    rows = worst_first(found, "dice", None)
    assert [row.name for row in rows] == sorted(one.case.name for one in found.cases)
    assert [row.remarks for row in rows if row.name == "missing"] == [()]


def test_an_incomplete_case_is_left_out_with_a_warning(cases, tmp_path):
    folder = tmp_path / "data"
    for name in ("whole", "half"):
        (folder / name).mkdir(parents=True)
        for channel in ("t1", "t1ce", "t2", "flair")[: 4 if name == "whole" else 3]:
            source = cases.data / "moved" / f"moved_{channel}.nii.gz"
            (folder / name / f"{name}_{channel}.nii.gz").write_bytes(source.read_bytes())
    found = listed(folder)
    assert [one.case.name for one in found.cases] == ["whole"]
    assert "half" in found.warnings[0]
    assert "flair" in found.warnings[0]


@pytest.mark.parametrize("name", ["events.jsonl", "coordinator.toml"])
def test_a_coordinators_folder_is_refused(cases, tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="images never leave their site"):
        listed(tmp_path)


def test_scores_of_other_cases_or_regions_are_refused(cases, tmp_path):
    other = written(tmp_path / "other.csv", {"somebody": {"WT": 0.5}})
    with pytest.raises(ConfigError, match="expected scores of the cases in the folder"):
        listed(cases.data, None, other)
    liver = written(tmp_path / "liver.csv", {"moved": {"liver": 0.5}})
    with pytest.raises(ConfigError, match="regions WT, TC, ET of task brats-2021, found liver"):
        listed(cases.data, None, liver)


def test_a_folder_without_any_case_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one case"):
        listed(tmp_path)
