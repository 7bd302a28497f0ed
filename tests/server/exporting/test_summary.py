"""What a finished run says at its end, from scores, released aggregates and the ranking."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from server.events import RunFinished
from server.exporting.settings import settings_of
from server.exporting.summary import summary_points
from server.run_folder import RunFolder

END = RunFinished(seconds=14.0, peak_memory_bytes=1024)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def summary(run_dir: Path, last_round: dict[str, int]) -> dict[tuple[str, str, int], float]:
    points = summary_points(RunFolder(run_dir), END, NOW, last_round)
    return {(point.method, point.name, point.step): point.value for point in points}


def test_a_finished_run_in_numbers(run_dir: Callable[..., Path]) -> None:
    assert summary(run_dir(), {"fedavg": 2}) == {
        ("", "run/seconds", 0): 14.0,
        ("", "run/peak_memory_bytes", 0): 1024.0,
        ("fedavg", "held_out/dice/region/WT/site/h", 2): 0.75,
        ("fedavg", "held_out/dice/region/ET/site/h", 2): 0.125,  # a missing value counts as 0
        ("fedavg", "held_out/hd95_mm/region/WT/site/h", 2): 2.0,
        ("fedavg", "held_out/hd95_mm/region/ET/site/h", 2): pytest.approx(373.5643),
        ("fedavg", "held_out/dice/region/WT", 2): 0.75,
        ("fedavg", "held_out/dice/region/ET", 2): 0.125,
        ("fedavg", "held_out/hd95_mm/region/WT", 2): 2.0,
        ("fedavg", "held_out/hd95_mm/region/ET", 2): pytest.approx(373.5643),
        ("fedavg", "held_out/dice/mean", 2): 0.4375,
        ("fedavg", "held_out/hd95_mm/mean", 2): pytest.approx(187.78215),
        ("fedavg", "rank/mean", 2): 1.25,
        ("fedavg", "rank/score", 2): 0.625,
        ("fedavg", "rank/place", 2): 1.0,
    }


def test_means_over_sites_count_every_case_alike(run_dir: Callable[..., Path]) -> None:
    run = run_dir()
    row = "case-0001,WT,0.0,6.0,0.5,1.0\n"
    header = "case,region,dice,hd95,sensitivity,specificity\n"
    (run / "scores" / "fedavg" / "k.csv").write_text(header + row)
    found = summary(run, {"fedavg": 2})
    assert found["fedavg", "held_out/dice/region/WT", 2] == 0.5  # (0.5 + 1.0 + 0.0) / 3
    assert found["fedavg", "held_out/dice/region/WT/site/k", 2] == 0.0


def test_a_site_that_releases_aggregates_has_its_means(run_dir: Callable[..., Path]) -> None:
    run = run_dir()
    (run / "scores" / "fedavg" / "h.csv").unlink()
    spread = {"median": 0.5, "q1": 0.25, "q3": 0.75}
    sums = {"methods": ["fedavg"], "regions": ["WT"], "ties": "min"}
    row = {
        "method": "fedavg",
        "region": "WT",
        "n_cases": 6,
        "n_empty_references": 0,
        "dice": {"mean": 0.625, **spread},
        "hd95": {"mean": 3.0, **spread},
    }
    released = {"data": "00" * 32, "sums": {**sums, "institutions": {}, "differences": []}}
    (run / "released").mkdir()
    (run / "released" / "r.json").write_text(json.dumps({**released, "aggregates": [row]}))
    found = summary(run, {"fedavg": 2})
    assert found["fedavg", "held_out/dice/region/WT/site/r", 2] == 0.625
    assert found["fedavg", "held_out/hd95_mm/region/WT", 2] == 3.0


def test_settings_are_flat_and_hold_no_path(run_dir: Callable[..., Path]) -> None:
    assert settings_of(run_dir() / "config.toml") == {
        "federation.seed": 7,
        "federation.rounds": 2,
        "federation.methods": "fedavg",
        "federation.exclude_after": 3,
        "federation.upload": "float16",
        "model.deep_supervision": True,
        "model.start.method": "fedavg",
        "training.learning_rate": 0.003,
        "training.loss.0.term": "dice",
        "training.loss.0.weight": 1.0,
        "training.loss.1.term": "cross-entropy",
        "training.loss.1.weight": 0.5,
    }


def test_a_run_that_has_hardly_begun_has_no_settings(tmp_path: Path) -> None:
    assert settings_of(tmp_path / "config.toml") == {}
