"""The plan as a file that people read and edit."""

from dataclasses import replace
from typing import Any

import pytest

from common.codec import decode, encode
from common.errors import ConfigError
from common.planning.plan import (
    Configuration,
    Configuration2d,
    Normalization,
    Plan,
    PlannedFor,
    configuration_of,
)

FULL = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(8.0, 8.0, 8.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    strides=((2, 2, 2),),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    features_per_stage=(8, 16),
    batch_dice=True,
    deep_supervision_weights=(1.0,),
)
LOW = replace(FULL, spacing_mm=(2.0, 2.0, 2.0), batch_dice=False)
SLICES = Configuration2d(
    spacing_mm=(1.0, 1.0),
    median_shape=(8.0, 8.0),
    patch_size=(8, 8),
    batch_size=12,
    strides=((2, 2),),
    kernel_sizes=((3, 3), (3, 3)),
    features_per_stage=(8, 16),
    batch_dice=True,
    deep_supervision_weights=(1.0,),
)
PLAN = Plan(
    schema=1,
    hash="0" * 64,
    rules="paper",
    planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
    channels=("MRI",),
    transpose=(0, 1, 2),
    normalization=(Normalization(channel="MRI", scheme="z-score"),),
    configurations={"2d": SLICES, "3d_fullres": FULL, "3d_lowres": LOW},
    cascade=True,
)


def edited(**configurations: Any) -> dict[str, Any]:
    plain = encode(PLAN)
    return {**plain, "configurations": {**plain["configurations"], **configurations}}


def test_two_and_three_axes_survive_the_file() -> None:
    assert decode(Plan, encode(PLAN), source="plan.json") == PLAN


def test_volumes_are_found_by_name() -> None:
    assert configuration_of(PLAN, "3d_fullres") == FULL
    assert configuration_of(PLAN, "3d_lowres") == LOW


def test_a_configuration_that_is_not_planned_is_a_clear_error() -> None:
    without = replace(PLAN, cascade=False, configurations={"2d": SLICES, "3d_fullres": FULL})
    with pytest.raises(
        ConfigError, match="expected the configuration 3d_lowres, found 2d, 3d_fullres"
    ):
        configuration_of(without, "3d_lowres")


def test_a_misspelt_key_names_the_nearest() -> None:
    plain = {**encode(FULL), "patch_siz": [8, 8, 8]}
    with pytest.raises(ConfigError) as caught:
        decode(Plan, edited(**{"3d_fullres": plain}), source="plan.json")
    assert "patch_siz: unknown key; did you mean 'patch_size'?" in str(caught.value)
    assert "2d" not in str(caught.value)  # nothing about the other record


def test_axes_must_fit_the_name() -> None:
    with pytest.raises(ConfigError, match=r"configurations\.2d: expected two axes"):
        decode(Plan, edited(**{"2d": encode(FULL)}), source="plan.json")
    with pytest.raises(ConfigError, match=r"configurations\.3d_fullres: expected three axes"):
        decode(Plan, edited(**{"3d_fullres": encode(SLICES)}), source="plan.json")


def test_a_cascade_needs_both_of_its_stages() -> None:
    plain = encode(PLAN)
    del plain["configurations"]["3d_lowres"]
    with pytest.raises(ConfigError, match="cascade: expected 3d_fullres and 3d_lowres"):
        decode(Plan, plain, source="plan.json")
