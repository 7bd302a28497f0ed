"""The file of scores: written with all digits, read strictly."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.evaluation.further_metrics import FurtherMetric, FurtherMetrics, wanted_metrics
from common.evaluation.metrics import BRATS_RULES, RegionScore
from common.evaluation.scores import (
    FurtherTable,
    ScoreTable,
    definition_of,
    read_all_scores,
    read_definition,
    read_scores,
    require_one_definition,
    write_scores,
)

POOLED = definition_of("brats-2021", "pooled", BRATS_RULES)
HEADER = "case,region,dice,hd95,sensitivity,specificity\n"
TABLE: ScoreTable = {
    "001": {
        "WT": RegionScore(dice=0.1, hd95=1.4142135623730951, sensitivity=1 / 3, specificity=1.0),
        "ET": RegionScore(dice=1.0, hd95=0.0, sensitivity=1.0, specificity=1.0),
    },
    "NA": {"WT": RegionScore(dice=0.0, hd95=374.0, sensitivity=0.0, specificity=0.0)},
}
fractions = st.floats(0, 1)
tables = st.dictionaries(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1),
    st.dictionaries(
        st.sampled_from(["WT", "TC", "ET"]),
        st.builds(RegionScore, fractions, st.floats(0, 1e3), fractions, fractions),
        min_size=1,
    ),
)


def write(path: Path, rows: str, header: str = HEADER) -> Path:
    path.write_text(header + rows)
    return path


def test_the_file_has_the_columns_of_the_contract_and_no_comment(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", TABLE, POOLED)
    assert (tmp_path / "scores.csv").read_text() == (
        "case,region,dice,hd95,sensitivity,specificity\n"
        "001,WT,0.1,1.4142135623730951,0.3333333333333333,1.0\n"
        "001,ET,1.0,0.0,1.0,1.0\n"
        "NA,WT,0.0,374.0,0.0,0.0\n"
    )


def test_pandas_reads_the_file_as_it_is(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", TABLE, POOLED)
    frame = pd.read_csv(tmp_path / "scores.csv")
    assert frame["region"].tolist() == ["WT", "ET", "WT"]
    assert frame["hd95"].tolist() == [1.4142135623730951, 0.0, 374.0]


def test_the_definition_lies_beside_the_numbers(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", TABLE, POOLED)
    beside = json.loads((tmp_path / "scores.csv.json").read_text())
    assert beside.pop("hd95_one_empty_mm") == pytest.approx(373.1287, abs=5e-5)
    assert beside == {
        "task": "brats-2021",
        "hd95": "pooled",
        "unit": "mm",
        "rules": "brats-2021",
        "hd95_missing_case_mm": 374.0,
    }
    assert read_definition(tmp_path / "scores.csv") == POOLED


@given(tables)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_what_was_written_is_read_back_bit_for_bit(tmp_path: Path, table: ScoreTable) -> None:
    write_scores(tmp_path / "scores.csv", table, POOLED)
    assert read_scores(tmp_path / "scores.csv") == table


def test_a_missing_value_is_nan_and_stays_so(tmp_path: Path) -> None:
    table = read_scores(write(tmp_path / "a.csv", "c0,WT,0.5,,nan,1\n"))
    assert math.isnan(table["c0"]["WT"].hd95)
    assert math.isnan(table["c0"]["WT"].sensitivity)
    write_scores(tmp_path / "b.csv", table, POOLED)
    assert (tmp_path / "b.csv").read_text() == HEADER + "c0,WT,0.5,,,1.0\n"


def test_an_infinite_hd95_can_be_read(tmp_path: Path) -> None:
    table = read_scores(write(tmp_path / "a.csv", "c0,WT,0,inf,0,1\n"))
    assert table["c0"]["WT"].hd95 == math.inf


def test_a_file_of_a_spreadsheet_with_byte_order_mark_can_be_read(tmp_path: Path) -> None:
    text = HEADER.replace("\n", "\r\n") + "c0,WT,1,0,1,1\r\n\r\n"
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_scores(tmp_path / "a.csv") == {"c0": {"WT": RegionScore(1.0, 0.0, 1.0, 1.0)}}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("c0,WT,1,0,1\n", "line 2: expected 6 fields, found 5"),
        ("c0,WT,1,0,1,1\nc0,WT,1,0,1,1\n", "line 3: expected each case and region once"),
        ("c0,WT,good,0,1,1\n", "line 2: expected dice from 0 to 1, found 'good'"),
        ("c0,WT,1.5,0,1,1\n", "line 2: expected dice from 0 to 1, found 1.5"),
        ("c0,WT,1,-1,1,1\n", "line 2: expected hd95 from 0 to inf, found -1"),
        ("c0,,1,0,1,1\n", "line 2: expected the names of a case and a region"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(
    tmp_path: Path, rows: str, complaint: str
) -> None:
    path = write(tmp_path / "scores.csv", rows)
    with pytest.raises(ConfigError) as error:
        read_scores(path)
    assert str(error.value).startswith(f"{path}: {complaint}")


def test_all_malformed_rows_are_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "scores.csv", "c0,WT,x,0,1,1\nc1,WT,1,0,1,1\nc2,WT,1,0,1,7\n")
    with pytest.raises(ConfigError, match=r"(?s)line 2: .*line 4: "):
        read_scores(path)


@pytest.mark.parametrize(
    "header", ["", "case,region,dice\n", "region,case,dice,hd95,sensitivity,specificity\n"]
)
def test_other_columns_are_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "scores.csv", "", header)
    with pytest.raises(ConfigError, match=r"line 1: expected the columns case,region,dice,hd95"):
        read_scores(path)


def test_a_missing_file_is_a_mistake_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.csv: expected a readable CSV file"):
        read_scores(tmp_path / "none.csv")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ConfigError, match="expected CSV text"):
        read_scores(tmp_path / "a.csv")


def test_scores_of_two_definitions_are_not_compared(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.csv" for name in ("a", "b", "c")}
    write(paths["a"], "")  # without a definition: nothing to object to
    write_scores(paths["b"], TABLE, POOLED)
    write_scores(paths["c"], TABLE, definition_of("brats-2021", "max", BRATS_RULES))
    assert require_one_definition({"a": paths["a"]}) is None
    assert require_one_definition({"a": paths["a"], "b": paths["b"]}) == POOLED
    with pytest.raises(ConfigError, match=r"c\.csv: expected scores defined as in .*b\.csv"):
        require_one_definition(paths)


ALL = wanted_metrics(["nsd", "volume_difference"], 1.5, "metastases")
ALL_DEFINED = definition_of("brats-2021", "pooled", BRATS_RULES, ALL)
WORTH: dict[FurtherMetric, float] = {
    "nsd": 0.25,
    "volume_difference": 3.5,
    "lesionwise_dice": 0.125,
    "lesionwise_hd95": 187.0,
}
FURTHER: FurtherTable = {case: dict.fromkeys(regions, WORTH) for case, regions in TABLE.items()}


def test_further_metrics_have_columns_only_when_asked_for(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.csv", TABLE, ALL_DEFINED, FURTHER)
    first, second, *_ = (tmp_path / "a.csv").read_text().splitlines()
    assert first == HEADER.strip() + ",nsd,volume_difference,lesionwise_dice,lesionwise_hd95"
    assert second.endswith(",0.25,3.5,0.125,187.0")
    lesions = definition_of("brats-2021", "pooled", BRATS_RULES, wanted_metrics([], None, "glioma"))
    write_scores(tmp_path / "b.csv", TABLE, lesions, FURTHER)
    assert (tmp_path / "b.csv").read_text().startswith(
        HEADER.strip() + ",lesionwise_dice,lesionwise_hd95\n"
    )  # fmt: skip


def test_further_metrics_are_read_back_and_do_not_disturb_the_others(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.csv", TABLE, ALL_DEFINED, FURTHER)
    assert read_scores(tmp_path / "a.csv") == TABLE
    assert read_all_scores(tmp_path / "a.csv") == (TABLE, FURTHER)
    assert read_definition(tmp_path / "a.csv") == ALL_DEFINED


def test_lesion_wise_scores_can_stand_in_the_place_of_the_usual_ones(tmp_path: Path) -> None:
    write_scores(tmp_path / "a.csv", TABLE, ALL_DEFINED, FURTHER)
    score = read_scores(tmp_path / "a.csv", lesion_wise=True)["001"]["WT"]
    assert (score.dice, score.hd95, score.sensitivity) == (0.125, 187.0, 1 / 3)
    write_scores(tmp_path / "b.csv", TABLE, POOLED)
    with pytest.raises(ConfigError, match="expected the columns lesionwise_dice and lesionwise_hd"):
        read_scores(tmp_path / "b.csv", lesion_wise=True)


def test_files_with_and_without_further_metrics_can_be_compared(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.csv" for name in ("a", "b")}
    write_scores(paths["a"], TABLE, POOLED)
    write_scores(paths["b"], TABLE, ALL_DEFINED, FURTHER)
    assert require_one_definition(paths) == POOLED
    with pytest.raises(ConfigError, match=r"b\.csv: expected scores defined as in .*a\.csv"):
        require_one_definition(paths, lesion_wise=True)


def test_further_columns_stand_in_one_order(tmp_path: Path) -> None:
    header = HEADER.strip() + ",lesionwise_hd95,lesionwise_dice\n"
    with pytest.raises(ConfigError, match="line 1: expected the columns"):
        read_scores(write(tmp_path / "a.csv", "", header))


def test_metrics_are_wanted_by_name() -> None:
    assert wanted_metrics(["dice", "hd95"]) == FurtherMetrics()
    assert wanted_metrics(["dice", "nsd"], 2.0).names == ("nsd",)
    assert wanted_metrics(["lesionwise_dice"]).names == ("lesionwise_dice", "lesionwise_hd95")
    with pytest.raises(ConfigError, match="nsd: expected a tolerance in mm"):
        wanted_metrics(["nsd"])
    with pytest.raises(ConfigError, match=r"expected some of dice, .*, found 'dise'"):
        wanted_metrics(["dise"])
