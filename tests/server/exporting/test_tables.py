"""Tables of events and scores, read back by pandas."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from server.exporting.export import Targets, export


@pytest.fixture(params=["csv", "parquet"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path, str], pd.DataFrame]:
    """Return what exports a run directory in one form and reads a table back."""
    reader = {"csv": pd.read_csv, "parquet": pd.read_parquet}[request.param]

    def back(run_dir: Path, name: str) -> pd.DataFrame:
        export(run_dir, Targets(**{request.param: tmp_path / "out"}), follow=False)
        return reader(tmp_path / "out" / f"{name}.{request.param}")

    return back


def columns_of(table: pd.DataFrame) -> dict[str, list[object]]:
    plain = table.astype(object).where(table.notna(), None)
    return {name: plain[name].tolist() for name in plain}


def test_updates_have_a_row_each(read: Callable[..., pd.DataFrame], run_dir: Callable[..., Path]):
    table = read(run_dir(), "SiteTrained")
    times = pd.to_datetime(table.pop("time"), format="ISO8601")
    assert [time.isoformat() for time in times] == [
        "2026-01-01T00:00:03.500000+00:00",
        "2026-01-01T00:00:04.500000+00:00",
        "2026-01-01T00:00:06.500000+00:00",
        "2026-01-01T00:00:08.500000+00:00",
    ]
    assert columns_of(table) == {
        "method": ["fedavg"] * 4,
        "round": [1, 1, 2, 2],
        "site": ["a", "b", "a", "b"],
        "n_cases": [3, 1, 3, 1],
        "n_steps": [10] * 4,
        "loss": [1.0, 0.5, 0.5, 0.25],
        "update_norm": [1.5] * 4,
        "seconds": [2.25] * 4,
        "upload_bytes": [1000] * 4,
        "download_bytes": [100] * 4,
        "late_rounds": [0] * 4,
    }


def test_what_a_field_holds_by_name_has_columns(
    read: Callable[..., pd.DataFrame], run_dir: Callable[..., Path]
) -> None:
    table = read(run_dir(), "SiteValidated")
    assert columns_of(table.drop(columns="time")) == {
        "method": ["fedavg"] * 3,
        "round": [1, 1, 2],
        "site": ["a", "b", "a"],
        "dice.WT": [0.5, 0.75, 1.0],
        "dice.ET": [0.25, 0.5, 0.5],
    }


def test_what_a_site_does_not_tell_is_missing(
    read: Callable[..., pd.DataFrame], run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    spent = {"epsilon": 1.5, "delta": 0.001, "budget_used": 0.25}
    private = lines.trained(3, 1, "a", None, 3) | {"spent": spent}
    run = run_dir(lines.started, private, lines.trained(4, 1, "b", 0.5, 1))
    table = columns_of(read(run, "SiteTrained"))
    assert table["loss"] == [None, 0.5]
    assert table["spent.epsilon"] == [1.5, None]
    assert table["spent.budget_used"] == [0.25, None]


def test_a_column_of_counts_with_gaps_holds_whole_numbers(
    tmp_path: Path, run_dir: Callable[..., Path]
) -> None:
    export(run_dir(), Targets(csv=tmp_path / "out"), follow=False)
    text = (tmp_path / "out" / "SiteJoined.csv").read_text()
    assert text == (
        "time,site,role,n_cases\n"
        "2026-01-01T00:00:01.500000+00:00,a,training,3\n"
        "2026-01-01T00:00:02.500000+00:00,b,training,\n"
    )


def test_opened_sums_and_texts_with_commas_and_line_ends(
    read: Callable[..., pd.DataFrame], run_dir: Callable[..., Path], lines: SimpleNamespace
) -> None:
    opened = lines.at(
        3,
        "SumOpened",
        method="fedavg",
        round=2,
        sites=["a", "b"],
        count=40,
        update_norm=1.5,
        seconds=0.5,
    )
    run = run_dir(lines.started, opened, lines.at(4, "Note", text='é, "x"\n\u2028;'))
    table = read(run, "SumOpened")
    assert columns_of(table.drop(columns="time")) == {
        "method": ["fedavg"],
        "round": [2],
        "sites": ["a; b"],
        "count": [40],
        "loss": [None],
        "update_norm": [1.5],
        "seconds": [0.5],
    }
    assert read(run, "Note")["text"].tolist() == ['é, "x"\n\u2028;']


def test_all_scores_are_one_long_table(
    read: Callable[..., pd.DataFrame], run_dir: Callable[..., Path]
) -> None:
    run = run_dir()
    folder = run / "scores" / "local-only@a"
    folder.mkdir()
    header = "case,region,dice,hd95,sensitivity,specificity,lesionwise_dice\n"
    (folder / "h.csv").write_text(header + "case-0001,WT,0.125,8.0,0.5,1.0,0.0625\n")
    assert columns_of(read(run, "scores")) == {
        "method": ["fedavg"] * 4 + ["local-only@a"],
        "site": ["h"] * 5,
        "case": ["case-0001", "case-0001", "case-0002", "case-0002", "case-0001"],
        "region": ["WT", "ET", "WT", "ET", "WT"],
        "dice": [0.5, None, 1.0, 0.25, 0.125],
        "hd95": [4.0, 373.1287, 0.0, float("inf"), 8.0],
        "sensitivity": [0.75, 0.0, 1.0, 0.5, 0.5],
        "specificity": [1.0, 1.0, 1.0, 1.0, 1.0],
        "lesionwise_dice": [None, None, None, None, 0.0625],
    }
