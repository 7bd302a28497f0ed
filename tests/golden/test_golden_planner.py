"""The published plans, and the plan of the real Hippocampus cases."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.dataset.layouts import describe
from client.fingerprint.measure import measure
from common.codec import decode, encode
from common.planning.plan import configuration_of
from common.planning.planner import PlanSummary, plan, plan_summary, summary_of
from common.task import load_task

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="session")
def rows(shared: Path) -> list[dict[str, Any]]:
    table = json.loads((shared / "golden" / "planner.json").read_text())
    return list(table["datasets"])


def test_every_published_configuration_is_reproduced(rows: list[dict[str, Any]]) -> None:
    differing = {}
    for row in rows:
        made = plan_summary(decode(PlanSummary, row["summary"], source="planner.json"))
        planned = encode(made)["configurations"]
        for name, expected in row["expected"].items():
            if different := differences(planned.get(name), expected):
                differing[row["summary"]["name"], name] = different
        if "cascade" in row and made.cascade != row["cascade"]:
            differing[row["summary"]["name"], "cascade"] = {"cascade": made.cascade}
    assert differing == {}
    assert len(rows) == 10


def differences(made: dict[str, Any] | None, expected: dict[str, Any] | None) -> dict[str, Any]:
    """Return what was planned differently; spacings are printed with two decimals."""
    if made is None or expected is None:
        return {} if made is expected else {"planned": made}
    return {
        key: made[key]
        for key, value in expected.items()
        if not (
            made[key] == pytest.approx(value, abs=0.005)
            if key == "spacing_mm"
            else made[key] == value
        )
    }


def test_real_hippocampus_cases_plan_to_the_published_patch(shared: Path) -> None:
    task = load_task("hippocampus")
    merged = measure(describe(shared / "data" / "Task04_Hippocampus", task), task)
    assert (merged.n_cases, merged.n_cropped) == (188, 0)
    made = plan(merged)
    full = configuration_of(made, "3d_fullres")
    assert made.transpose == (0, 1, 2)
    assert full.median_shape == (36.0, 50.0, 35.0)
    assert full.spacing_mm == (1.0, 1.0, 1.0)
    assert full.patch_size == (40, 56, 40)
    assert full.strides == ((2, 2, 2),) * 3
    # 9 in the paper, with 260 cases; 5 % of 188 * 63000 voxels are 6.6 patches
    assert full.batch_size == 7
    slices = made.configurations["2d"]
    assert slices.patch_size == (56, 40)
    assert slices.strides == ((2, 2),) * 3
    # 366 in the paper, with 260 cases; 5 % of 188 * 63000 voxels are 264.4 patches
    assert slices.batch_size == 264
    assert not made.cascade


@pytest.mark.parametrize(("n_cases", "slices", "volumes"), [(260, 366, 9), (188, 264, 7)])
def test_all_260_hippocampus_cases_plan_to_the_published_batches(
    shared: Path, n_cases: int, slices: int, volumes: int
) -> None:
    task = load_task("hippocampus")
    summary = summary_of(measure(describe(shared / "data" / "Task04_Hippocampus", task), task))
    made = plan_summary(replace(summary, n_training_cases=n_cases)).configurations
    assert (made["2d"].batch_size, made["3d_fullres"].batch_size) == (slices, volumes)
