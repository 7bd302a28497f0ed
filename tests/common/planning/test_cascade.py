"""The first stage of the cascade; published values are from arXiv 1904.08128v2, supplement F."""

import pytest

from common.planning.cascade import Stage, full_resolution, low_resolution
from common.planning.patch import Demand
from common.planning.rules import rule_set
from common.planning.topology import Lengths

KIDNEY: tuple[Lengths, Lengths] = ((0.78, 0.78, 0.78), (525.0, 512.0, 512.0))
COLON: tuple[Lengths, Lengths] = ((3.0, 0.78, 0.78), (150.0, 512.0, 512.0))
PAPER, V2 = rule_set("paper"), rule_set("v2")


def first_stage(data: tuple[Lengths, Lengths], demand: Demand) -> Stage:
    found = low_resolution(full_resolution(*data, demand, PAPER), data[1], demand, PAPER)
    assert found is not None
    return found


def test_isotropic_spacing_grows_alike_along_all_axes() -> None:
    low = first_stage(KIDNEY, Demand(n_channels=1, n_outputs=3, n_cases=206, memory_gb=8.0))
    assert low.spacing_mm == pytest.approx((1.99, 1.99, 1.99), abs=0.005)
    assert low.median_shape == (206, 201, 201)
    assert low.fit.network.patch_size == (128, 128, 128)


def test_the_finer_axes_grow_first() -> None:
    low = first_stage(COLON, Demand(n_channels=1, n_outputs=2, n_cases=126, memory_gb=8.0))
    assert low.spacing_mm == pytest.approx((3.09, 1.55, 1.55), abs=0.005)
    assert low.median_shape == (146, 258, 258)
    assert low.fit.network.patch_size == (96, 160, 160)


def test_the_second_versions_steps_are_longer() -> None:
    demand = Demand(n_channels=1, n_outputs=2, n_cases=12, memory_gb=8.0)
    spacing, shape = (0.5, 0.5, 0.5), (1024.0, 1024.0, 1024.0)
    low = low_resolution(full_resolution(spacing, shape, demand, V2), shape, demand, V2)
    assert low is not None  # nnunetv2 2.8.1
    assert low.spacing_mm == pytest.approx((2.5411, 2.5411, 2.5411), abs=1e-4)
    assert low.median_shape == (201, 201, 201)


def test_a_patch_that_sees_a_quarter_needs_no_first_stage() -> None:
    demand = Demand(n_channels=1, n_outputs=2, n_cases=10, memory_gb=8.0)
    shape = (203.0, 203.0, 203.0)  # 3.99 patches of 128 voxels
    full = full_resolution((1.0, 1.0, 1.0), shape, demand, PAPER)
    assert full.fit.network.patch_size == (128, 128, 128)
    assert low_resolution(full, shape, demand, PAPER) is None


def test_a_first_stage_of_more_than_half_the_voxels_is_dropped() -> None:
    demand = Demand(n_channels=1, n_outputs=2, n_cases=10, memory_gb=8.0)
    shape = (240.0, 240.0, 240.0)  # 6.6 patches: a few steps of 1 % come below four
    full = full_resolution((1.0, 1.0, 1.0), shape, demand, PAPER)
    assert low_resolution(full, shape, demand, PAPER) is None
