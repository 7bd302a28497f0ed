import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.histogram import added, percentile

counts = st.dictionaries(st.integers(-5000, 5000), st.integers(1, 30), min_size=1, max_size=30)


def test_median_of_an_even_number_is_the_mean_of_the_two_middle_values() -> None:
    assert percentile({10: 2, 13: 1, 90: 1}, 50) == 11.5


def test_percentile_interpolates_between_both_neighbouring_order_statistics() -> None:
    # ranks 0..4; 10 % lies at rank 0.4, two fifths of the way from 1.00 to 3.00
    assert percentile({100: 1, 300: 4}, 10) == 180.0


@pytest.mark.parametrize(("percent", "expected"), [(0, 7.0), (50, 7.0), (99.5, 7.0), (100, 7.0)])
def test_one_value_is_every_percentile(percent: float, expected: float) -> None:
    assert percentile({7: 1}, percent) == expected


def test_first_and_last_percentile_are_the_smallest_and_largest_value() -> None:
    assert (percentile({3: 5, -2: 1, 8: 2}, 0), percentile({3: 5, -2: 1, 8: 2}, 100)) == (-2.0, 8.0)


@given(counts, st.sampled_from([0.0, 0.5, 10.0, 25.0, 50.0, 99.5, 100.0]))
def test_percentiles_equal_numpys_on_the_expanded_values_to_the_last_bit(
    histogram: dict[int, int], percent: float
) -> None:
    expanded = np.repeat(list(histogram), list(histogram.values()))
    assert percentile(histogram, percent) == np.percentile(expanded, percent)


@given(counts, counts)
def test_added_counts_are_those_of_both(a: dict[int, int], b: dict[int, int]) -> None:
    assert added(a, b) == {value: a.get(value, 0) + b.get(value, 0) for value in {*a, *b}}
    assert added(a, {}) == a
