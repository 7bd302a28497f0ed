"""A report of a log in any state: truncated, damaged, of another version, or without a start."""

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from server.event_log import read_events
from server.reporting.report import write_report
from server.reporting.run_log import read_log

TIME = "2026-01-02T03:04:05.678+00:00"
START = {
    "time": TIME,
    "event": "RunStarted",
    "run": "trial",
    "task": "brats-2021",
    "methods": ["fedavg"],
    "seed": 1,
    "resumed": False,
    "versions": {},
    "device": "cpu",
}
TRAINED = {
    "time": TIME,
    "event": "SiteTrained",
    "method": "fedavg",
    "round": 1,
    "site": "north",
    "n_cases": 4,
    "n_steps": 10,
    "loss": 0.8125,
    "update_norm": 1.0,
    "seconds": 2.0,
    "upload_bytes": 2048,
}
OLDER = {"time": TIME, "event": "SiteTrained", "method": "fedavg", "round": 2, "site": "north"}
UNKNOWN = {"time": TIME, "event": "SiteSang", "site": "north"}


def _log(folder: Path, *lines: object, end: str = "") -> Path:
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + end)
    return path


def test_a_line_cut_short_and_lines_of_other_versions_are_told_and_the_rest_is_read(
    tmp_path: Path,
) -> None:
    path = _log(tmp_path, START, OLDER, TRAINED, UNKNOWN, 5, end='{"time": "2026-')
    log = read_log(path)
    assert [type(event).__name__ for event in log.events] == ["RunStarted", "SiteTrained"]
    assert [line.number for line in log.unreadable] == [2, 4, 5, 6]
    assert log.unreadable[0].reason.startswith("SiteTrained: n_cases: missing")
    assert log.unreadable[1].reason == "an event that this version does not know: 'SiteSang'"
    assert log.unreadable[3].reason == "expected one JSON object, found damaged text"


def test_times_are_utc_whatever_their_zone_and_empty_lines_say_nothing(tmp_path: Path) -> None:
    there = {**TRAINED, "time": "2026-01-02T05:04:05+02:00"}
    path = _log(tmp_path, {**START, "time": "2026-01-02T03:04:05"}, end="\n \n")
    path.write_text(path.read_text() + json.dumps(there))  # whole, but for its end
    log = read_log(path)
    times = [time.isoformat() for time, _ in log.timed]
    assert times == ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05+00:00"]
    assert log.unreadable == ()


def test_a_reason_is_cut(tmp_path: Path) -> None:
    log = read_log(_log(tmp_path, START, {"time": TIME, "event": "x" * 1000}))
    assert len(log.unreadable[0].reason) == 204
    assert log.unreadable[0].reason.endswith("x ...")


def test_the_report_lists_what_it_could_not_read_and_shows_the_rest(tmp_path: Path) -> None:
    _log(tmp_path, START, TRAINED, UNKNOWN, end='{"time": "2026-')
    html = write_report(tmp_path).read_text()
    markdown = (tmp_path / "report.md").read_text()
    for text in (html, markdown):
        assert "events.jsonl, line 3: an event that this version does not know" in text
        assert "events.jsonl, line 4: expected one JSON object, found damaged text" in text
        assert "north" in text
        assert "0.812" in text


def test_a_megabyte_of_damage_is_not_repeated_in_the_report(tmp_path: Path) -> None:
    log = read_log(_log(tmp_path, START, {"time": TIME, "event": "x" * 2**20}))
    assert len(log.unreadable[0].reason) < 210


def test_a_resumption_still_refuses_a_log_that_it_does_not_understand(tmp_path: Path) -> None:
    path = _log(tmp_path, START, UNKNOWN)
    with pytest.raises(ConfigError, match="known event"):
        list(read_events(path))


def test_a_log_whose_start_is_damaged_is_shown_by_its_configuration(tmp_path: Path) -> None:
    _log(tmp_path, UNKNOWN, TRAINED)
    (tmp_path / "config.toml").write_text(CONFIG)
    text = write_report(tmp_path).read_text()
    assert "FedAvg" in text
    assert "events.jsonl, line 1" in text


def test_files_of_another_version_are_told_and_not_an_end(tmp_path: Path) -> None:
    _log(tmp_path, START, TRAINED)
    (tmp_path / "config.toml").write_text(CONFIG.replace("rounds", "n_rounds"))
    (tmp_path / "plan.json").write_text('{"schema": 0}')
    (tmp_path / "ranking.json").write_text("{")
    write_report(tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "config.toml: " in markdown
    assert "n\\_rounds" in markdown
    assert "plan.json: " in markdown
    assert "ranking.json: " in markdown


CONFIG = """
task = "brats-2021"
[federation]
seed = 1
methods = ["fedavg"]
rounds = 2
local_steps = 3
held_out = []
min_sites = 1
[model]
configuration = "3d_fullres"
norm = "instance"
batch_norm = "shared"
output = "labels"
base_features = 4
deep_supervision = true
[planning]
rules = "paper"
memory_gb = 8
[training]
optimizer = "sgd"
learning_rate = 0.01
momentum = 0.99
weight_decay = 0.0
gradient_clip_norm = 12.0
validation_fraction = 0.1
schedule = { name = "poly", power = 0.9 }
augmentation = { preset = "light" }
[evaluation]
hd95 = "pooled"
mirroring = false
calibration_patches = 4
ties = "min"
pictures = false
"""
