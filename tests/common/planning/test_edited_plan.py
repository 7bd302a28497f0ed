import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import write_json
from common.errors import ConfigError
from common.planning.edited_plan import advice, defects, read_plan
from common.planning.plan import Plan, Rules, sealed
from common.planning.planner import plan_summary
from common.planning.summary import PlanSummary

PLAN = plan_summary(
    PlanSummary(
        name="Hippocampus",
        channels=("MRI",),
        n_training_cases=260,
        n_foreground_classes=2,
        target_spacing_mm=(1.0, 1.0, 1.0),
        median_shape_at_target=(36.0, 50.0, 35.0),
    )
)


def edited(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    path = tmp_path / "plan.json"
    write_json(path, PLAN)
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return path


def full(table: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = table["configurations"]["3d_fullres"]
    return found


def test_a_plan_that_nobody_touched_is_not_marked(tmp_path: Path) -> None:
    assert read_plan(edited(tmp_path, dict.copy)) == PLAN


def test_an_edited_plan_is_sealed_again_and_marked(tmp_path: Path) -> None:
    found = read_plan(edited(tmp_path, lambda table: full(table).update(batch_size=4)))
    assert found.edited
    assert found.hash != PLAN.hash
    assert found == sealed(found)


def test_taking_the_mark_away_is_an_edit_as_well(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda table: full(table).update(batch_size=4))
    write_json(path, read_plan(path))
    table = json.loads(path.read_text())
    table["edited"] = False
    path.write_text(json.dumps(table))
    assert read_plan(path).edited


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: full(table).update(patch_size=[40, 50, 40]),
            (
                "configurations.3d_fullres.patch_size: expected multiples of 8x8x8, the product of "
                "the strides, found 40x50x40"
            ),
        ),
        (
            lambda table: full(table).update(spacing_mm=[1.0, 0.0, 1.0]),
            "configurations.3d_fullres.spacing_mm.1: expected greater than 0, found 0",
        ),
        (
            lambda table: full(table).update(features_per_stage=[32, 64]),
            "features_per_stage: expected 4 entries (one more than strides), found 2",
        ),
        (
            lambda table: full(table)["kernel_sizes"].pop(),
            "kernel_sizes: expected 4 entries (one more than strides), found 3",
        ),
        (
            lambda table: full(table).update(kernel_sizes=[[2, 3, 3]] + [[3, 3, 3]] * 3),
            "kernel_sizes: expected odd widths, found 2x3x3",
        ),
        (
            lambda table: full(table).update(deep_supervision_weights=[0.5, 0.25, 0.0]),
            "deep_supervision_weights: expected a sum of 1, found 0.75",
        ),
        (
            lambda table: full(table).update(patch_size=[8, 8, 8]),
            "strides: expected more than one voxel in the last stage",
        ),
        (
            lambda table: table.update(transpose=[0, 1, 1]),
            "transpose: expected 0, 1 and 2 in some order, found (0, 1, 1)",
        ),
        (
            lambda table: table["normalization"][0].update(channel="CT"),
            "normalization: expected the channels MRI, found CT",
        ),
        (
            lambda table: table["configurations"].clear(),
            "configurations: expected at least one, found none",
        ),
        (lambda table: full(table).update(bath_size=2), "unknown key; did you mean 'batch_size'?"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_place_and_what_was_expected(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = edited(tmp_path, change)
    with pytest.raises(ConfigError) as refusal:
        read_plan(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_batch_of_one_and_too_much_memory_are_advised_against(tmp_path: Path) -> None:
    small = read_plan(edited(tmp_path, lambda table: full(table).update(batch_size=1)))
    assert advice(small) == (
        (
            "configurations.3d_fullres.batch_size: 1 makes gradients noisy; nnU-Net never plans "
            "below 2 in 3D, and batch norm needs more"
        ),
    )
    large = read_plan(edited(tmp_path, lambda table: full(table).update(batch_size=100)))
    assert advice(large) == (
        (
            "configurations.3d_fullres: training takes about 13.9 GB, more than the 8 GB of "
            "planned_for.memory_gb"
        ),
    )


EDGE, MM = st.integers(2, 600), st.floats(0.2, 8.0)


@given(
    shape=st.tuples(EDGE, EDGE, EDGE),
    spacing=st.tuples(MM, MM, MM),
    rules=st.sampled_from(["paper", "v2", "v2-resenc-m"]),
    memory_gb=st.floats(2.0, 40.0),
    n_channels=st.integers(1, 4),
)
def test_no_plan_of_the_rules_has_a_defect_or_takes_more_memory_than_it_was_given(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    rules: Rules,
    memory_gb: float,
    n_channels: int,
) -> None:
    z, y, x = map(float, shape)
    made: Plan = plan_summary(
        PlanSummary(
            name="any",
            channels=("T1", "T2", "FLAIR", "PD")[:n_channels],
            n_training_cases=100_000,
            n_foreground_classes=3,
            target_spacing_mm=spacing,
            median_shape_at_target=(z, y, x),
        ),
        rules=rules,
        memory_gb=memory_gb,
    )
    assert defects(made) == ()
    assert not [line for line in advice(made) if "GB" in line]
    assert not made.edited
    assert replace(made, hash="") == replace(sealed(made), hash="")
