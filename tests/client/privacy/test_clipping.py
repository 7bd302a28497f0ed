"""No gradient, however bad, adds more than the clip norm to the sum."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.privacy.clipping import add_clipped, clip_factor, norm_of

ANY_FLOAT32 = st.floats(width=32, allow_nan=True, allow_infinity=True)


def clipped(values: list[float], clip_norm: float) -> torch.Tensor:
    total = [torch.zeros(len(values)), torch.zeros(3)]
    add_clipped(total, [torch.tensor(values), None], clip_norm)
    assert total[1].tolist() == [0, 0, 0]
    return total[0]


def test_a_small_gradient_stays_and_a_large_one_keeps_its_direction() -> None:
    assert clipped([0.3, -0.4], 1.0).tolist() == pytest.approx([0.3, -0.4])
    assert clipped([30.0, -40.0], 1.0).tolist() == pytest.approx([0.6, -0.8], rel=1e-5)


def test_the_norm_is_that_of_all_tensors_together() -> None:
    total = [torch.zeros(1), torch.zeros(1)]
    add_clipped(total, [torch.tensor([3.0]), torch.tensor([4.0])], 1.0)
    assert [tensor.item() for tensor in total] == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_counts_as_zeros(bad: float) -> None:
    assert clipped([1.0, bad, 2.0], 1.0).tolist() == [0, 0, 0]


def test_values_whose_squares_overflow_float32_are_clipped_and_not_lost() -> None:
    assert clipped([3e30, 4e30], 1.0).tolist() == pytest.approx([0.6, 0.8], rel=1e-5)


@given(
    st.lists(ANY_FLOAT32, min_size=1, max_size=40),
    st.sampled_from([1e-6, 0.1, 1.0, 1e4]),
)
def test_no_gradient_adds_more_than_the_clip_norm(values: list[float], clip_norm: float) -> None:
    assert norm_of([clipped(values, clip_norm)]) <= clip_norm


def test_the_factor_is_never_above_1_and_0_for_what_is_not_finite() -> None:
    norms = (0.0, 1e-30, 0.5, 1.0, 2.0, math.inf, math.nan)
    factors = [clip_factor(norm, 1.0) for norm in norms]
    assert factors == pytest.approx([1, 1, 1, 1, 0.5, 0, 0], rel=1e-5)
    assert max(factors) == 1.0
