import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.planning.edited_plan import read_plan
from common.planning.fingerprint import fingerprint_of, merge_all
from common.planning.planner import plan, plan_summary
from common.planning.summary import PlanSummary, summary_of
from common.task import Task, load_task
from consilium import app
from server.planning.network_drawing import drawing
from server.planning.plan_words import explain_edited, explain_plan

HIPPOCAMPUS = PlanSummary(
    name="Hippocampus",
    channels=("MRI",),
    n_training_cases=260,
    n_foreground_classes=2,
    target_spacing_mm=(1.0, 1.0, 1.0),
    median_shape_at_target=(36.0, 50.0, 35.0),
)
LIVER = PlanSummary(  # of nnU-Net's supplement
    name="LiTS",
    channels=("CT",),
    n_training_cases=131,
    n_foreground_classes=2,
    target_spacing_mm=(1.0, 0.7676, 0.7676),
    median_shape_at_target=(482.0, 512.0, 512.0),
)


def explained(summary: PlanSummary) -> str:
    return " ".join(explain_plan(plan_summary(summary), summary, None).split())


def test_the_network_is_drawn_with_its_sizes_kernels_and_memory() -> None:
    assert drawing(plan_summary(HIPPOCAMPUS), "3d_fullres").splitlines()[:4] == [
        "1 channel in                                2 + background out  kernel     memory",
        (
            "[32] 40x56x40 ------------------------------------------> [32]  3x3x3     0.95 GB"
            "  ###############"
        ),
        "  \\ 2x2x2                                            2x2x2 /",
        "   [64] 20x28x20 ------------------------------------> [64]     3x3x3     0.23 GB  ####",
    ]


def test_a_network_without_any_step_is_drawn_as_a_single_stage() -> None:
    tiny = replace(HIPPOCAMPUS, median_shape_at_target=(5.0, 5.0, 5.0))
    lines = drawing(plan_summary(tiny), "3d_fullres").splitlines()
    assert lines[1].startswith("[32] 5x5x5 a single stage")
    assert len(lines) == 3


def test_the_batch_is_explained_by_what_fits_and_by_the_share_of_the_data() -> None:
    text = explained(HIPPOCAMPUS)
    assert "batch: 9 rule: what fits into memory, but no more than 5 %" in text
    assert "here: 57 fit; 5 % of 260 median cases are 9 patches" in text


def test_a_cascade_is_explained_by_the_voxels_of_the_median_case() -> None:
    assert "3d_lowres: not planned" in explained(HIPPOCAMPUS)
    assert "63,000 voxels at full resolution, 358,400 in 4 patches" in explained(HIPPOCAMPUS)
    liver = explained(LIVER)
    assert "126,353,408 voxels at full resolution, 8,388,608 in 4 patches" in liver
    assert "3d_lowres: planned at" in liver


def test_the_shrinking_of_a_patch_is_told_step_by_step() -> None:
    assert (
        "median shape 482x512x512; 512x512x512 > 448x512x512 > 448x512x448 > (20 more)"
        in explained(LIVER)
    )


def test_the_clamped_percentile_of_thick_slices_is_told() -> None:
    task = load_task("hippocampus")
    cases = [((20, 200, 200), (5.0, 1.0, 1.0))] * 9 + [((60, 200, 200), (0.5, 1.0, 1.0))] * 2
    merged = merge_all(
        {str(n): fingerprint_of(s, s, mm, None, task) for n, (s, mm) in enumerate(cases)}
    )
    text = " ".join(explain_plan(plan(merged), summary_of(merged), merged).split())
    assert "medians 5 x 1 x 1 mm along z, y, x of 11 cases, median shape 20x200x200" in text
    assert "z is 5 times the in-plane 1 mm; its 10th percentile is 0.5 mm, below" in text


def ct_task() -> Task:
    return replace(load_task("hippocampus"), channels=("CT",))


def test_ct_constants_are_told_with_how_many_voxels_they_came_from() -> None:
    import numpy as np

    shape, values = (20, 20, 20), {"CT": np.arange(-500.0, 501.0)}
    one = fingerprint_of(shape, shape, (1.0, 1.0, 1.0), values, ct_task())
    text = " ".join(explain_plan(plan(one), summary_of(one), one).split())
    assert "normalisation of CT: CT: clip to [-495, 495] HU, subtract 0, divide by" in text
    assert "1,001 sampled voxels" in text


def test_an_edited_plan_is_drawn_and_said_to_be_edited(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    run = CliRunner().invoke(app, ["plan", "--summary", str(summary), "-o", str(path)])
    assert run.exit_code == 0
    table = json.loads(path.read_text())
    table["configurations"]["3d_fullres"]["batch_size"] = 1
    path.write_text(json.dumps(table))
    text = explain_edited(read_plan(path))
    assert "edited by hand, once made by the rules 'paper' for 260 cases" in text
    assert "about 0.14 of 8 GB for a batch of 1" in text
    assert "Advice: configurations.3d_fullres.batch_size: 1 makes gradients noisy" in text
    again = tmp_path / "sealed.json"
    run = CliRunner().invoke(app, ["plan", "--edited", str(path), "-o", str(again), "--explain"])
    assert run.exit_code == 0
    assert "edited by hand" in run.output
    assert json.loads(again.read_text())["edited"] is True


SUMMARY = {
    "name": "Hippocampus",
    "channels": ["MRI"],
    "n_training_cases": 260,
    "n_foreground_classes": 2,
    "target_spacing_mm": [1.0, 1.0, 1.0],
    "median_shape_at_target": [36.0, 50.0, 35.0],
}


def test_plan_takes_one_kind_of_source_only(tmp_path: Path) -> None:
    from common.errors import ConfigError
    from server.planning.plan_files import planned_from

    with pytest.raises(ConfigError, match="one of them only"):
        planned_from((), None, None, memory_gb=8, rules="paper")
    with pytest.raises(ConfigError, match="one of them only"):
        planned_from((tmp_path,), tmp_path, None, memory_gb=8, rules="paper")
