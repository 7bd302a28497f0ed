"""The published plans, and the plan of the real Hippocampus cases."""

import json
from pathlib import Path
from typing import Any

import pytest

from client.layouts import describe
from client.measure import measure
from common.codec import decode, encode
from common.planner import PlanSummary, plan, plan_summary
from common.task import load_task

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="session")
def rows(shared: Path) -> list[dict[str, Any]]:
    table = json.loads((shared / "golden" / "planner.json").read_text())
    return [row for row in table["datasets"] if row["expected"].get("3d_fullres")]


def test_every_published_full_resolution_plan_is_reproduced(rows: list[dict[str, Any]]) -> None:
    differing = {}
    for row in rows:
        summary = decode(PlanSummary, row["summary"], source="planner.json")
        made = encode(plan_summary(summary).configurations["3d_fullres"])
        expected = row["expected"]["3d_fullres"]
        if different := {key: made[key] for key in expected if made[key] != expected[key]}:
            differing[summary.name] = different
    assert differing == {}
    assert len(rows) == 10


def test_real_hippocampus_cases_plan_to_the_published_patch(shared: Path) -> None:
    task = load_task("hippocampus")
    merged = measure(describe(shared / "data" / "Task04_Hippocampus", task), task)
    assert (merged.n_cases, merged.n_cropped) == (188, 0)
    made = plan(merged)
    full = made.configurations["3d_fullres"]
    assert made.transpose == (0, 1, 2)
    assert full.median_shape == (36.0, 50.0, 35.0)
    assert full.spacing_mm == (1.0, 1.0, 1.0)
    assert full.patch_size == (40, 56, 40)
    assert full.strides == ((2, 2, 2),) * 3
    # 9 in the paper, with 260 cases; 5 % of 188 * 63000 voxels are 6.6 patches
    assert full.batch_size == 7
