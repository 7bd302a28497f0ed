"""The noise: normal, of deviation 1, independent, and never the same twice."""

import math

import pytest
import torch
from scipy import stats

from common.privacy import noise
from common.privacy.noise import normal_pairs, secure_normals

CPU = torch.device("cpu")
N = 300_000  # more than one block, and no multiple of one


@pytest.fixture(scope="module")
def values() -> torch.Tensor:
    return secure_normals(N, CPU)


def test_the_values_are_standard_normal(values: torch.Tensor) -> None:
    assert values.dtype == torch.float64
    # seven deviations of mean and variance of N values: a chance of 1e-11
    assert abs(values.mean().item()) < 7 / math.sqrt(N)
    assert abs(values.var().item() - 1) < 7 * math.sqrt(2 / N)
    assert stats.kstest(values.numpy(), "norm").pvalue > 1e-9


def test_neighbours_and_both_halves_of_a_block_are_uncorrelated(values: torch.Tensor) -> None:
    half = noise.BLOCK_VALUES // 2
    bound = 7 / math.sqrt(half)
    assert abs((values[:-1] * values[1:]).mean().item()) < bound
    first, second = values[:half], values[half : 2 * half]
    assert abs((first * second).mean().item()) < bound
    assert abs((first.square() * second.square()).mean().item() - 1) < 3 * bound


def test_the_noise_is_different_every_time() -> None:
    torch.manual_seed(1)
    first = secure_normals(1000, CPU)
    torch.manual_seed(1)
    second = secure_normals(1000, CPU)
    assert not (first == second).any()
    assert len(set(secure_normals(N, CPU).tolist())) == N  # no block repeats another


def test_any_number_of_values_can_be_had() -> None:
    assert [len(secure_normals(n, CPU)) for n in (0, 1, 2, 7)] == [0, 1, 2, 7]


def test_the_rarest_bits_are_finite_and_far_out() -> None:
    bits = torch.tensor([0, 2**63 - 1, -1, -(2**63)])
    radius, angle = normal_pairs(bits, bits)
    # sqrt(2 * 63 * ln 2) = 9.3454 where all bits are 0, and 0 where all are 1
    assert radius.tolist() == pytest.approx([9.3454, 0, 0, 9.3454], abs=1e-4)
    assert (angle >= 0).all()
    assert (angle <= 2 * math.pi).all()
