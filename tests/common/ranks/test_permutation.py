"""The permutation test: by hand, by enumeration, and by Monte Carlo."""

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ranks.permutation import (
    MonteCarlo,
    exact_p_value,
    monte_carlo_p_value,
    permutation_p_value,
)

DRAWS = MonteCarlo(n_draws=20_000, seed=5)


def test_the_permutation_test_stays_exact_far_beyond_enumeration() -> None:
    # 40 cases that all favour a: only one of 2^40 sign flips is as extreme.
    assert permutation_p_value([-3] * 40) == 2.0**-40
    assert permutation_p_value([3] * 40) == 1.0


def test_cases_without_difference_say_nothing() -> None:
    assert permutation_p_value([]) == 1.0
    assert permutation_p_value([0, 0]) == 1.0
    assert permutation_p_value([-1, 0, 0, 0]) == 0.5


@given(st.lists(st.integers(-12, 12).map(lambda doubled: doubled / 2), max_size=8))
def test_the_permutation_test_equals_enumeration(differences: list[float]) -> None:
    flips = list(product((1, -1), repeat=len(differences)))
    extreme = sum(
        sum(sign * d for sign, d in zip(signs, differences, strict=True)) <= sum(differences)
        for signs in flips
    )
    assert permutation_p_value(differences) == pytest.approx(extreme / len(flips), abs=1e-12)


def test_monte_carlo_counts_the_observed_arrangement_itself() -> None:
    # One draw: either it hits (2 of 2) or not (1 of 2); never 0.
    assert monte_carlo_p_value({4: 50}, -200, MonteCarlo(n_draws=1, seed=1)) == 0.5
    assert monte_carlo_p_value({4: 50}, 200, MonteCarlo(n_draws=1, seed=1)) == 1.0
    assert monte_carlo_p_value({}, 0, MonteCarlo(n_draws=9, seed=1)) == 1.0


def test_monte_carlo_says_the_same_for_the_same_seed_in_any_order_of_counts() -> None:
    one = monte_carlo_p_value({2: 3, 4: 5}, -6, DRAWS)
    assert monte_carlo_p_value({4: 5, 2: 3}, -6, DRAWS) == one
    assert monte_carlo_p_value({2: 3, 4: 5}, -6, MonteCarlo(n_draws=20_000, seed=6)) != one


@given(st.lists(st.integers(-12, 12), min_size=1, max_size=30))
def test_monte_carlo_comes_close_to_the_exact_value(halves: list[int]) -> None:
    counts = Counter(abs(half) for half in halves if half)
    exact = exact_p_value(counts, sum(halves))
    # 5 standard deviations of a share of 20 000 draws
    assert monte_carlo_p_value(counts, sum(halves), DRAWS) == pytest.approx(exact, abs=0.018)


@given(st.lists(st.integers(-12, 12), max_size=30), st.randoms())
def test_the_exact_value_is_the_same_to_the_bit_in_any_order(halves: list[int], random) -> None:
    shuffled = random.sample(halves, len(halves))
    one, other = (
        exact_p_value(Counter(abs(half) for half in order if half), sum(halves))
        for order in (halves, shuffled)
    )
    assert one == other
