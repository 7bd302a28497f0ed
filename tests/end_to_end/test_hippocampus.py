"""The real Hippocampus cases through the shipped configuration, cut short to two steps."""

import json
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "hippocampus.toml"


@pytest.mark.real_data
def test_the_shipped_configuration_plans_the_published_patch_and_runs(
    run, shared: Path, tmp_path: Path
):
    text = CONFIG.read_text()
    short = text.replace("rounds = 10", "rounds = 1").replace("local_steps = 40", "local_steps = 2")
    assert short != text
    config = tmp_path / "hippocampus.toml"
    config.write_text(short)
    data, out = shared / "data" / "Task04_Hippocampus", tmp_path / "run"

    code, _, stderr = run("simulate", config, "--data", data, "--out", out)

    assert code == 0, stderr
    plan = json.loads((out / "plan.json").read_text())
    full = plan["configurations"]["3d_fullres"]
    assert full["patch_size"] == [40, 56, 40]
    assert full["strides"] == [[2, 2, 2]] * 3
    assert "batch_size 4 instead of 5 (max_batch_size)" in plan["limits"]
    report = (out / "report.md").read_text()
    assert "held-out" in report
    scores = (out / "scores" / "fedavg" / "held-out.csv").read_text().splitlines()
    assert len(scores) == 1 + 36 * 2
