import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.planning.histogram import added, coarsened, largest_move, percentile

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


# Coarse bins


@pytest.mark.parametrize(
    ("histogram", "at_least", "expected"),
    [
        ({1: 1, 2: 1, 3: 1, 10: 5}, 3, {2: 3, 10: 5}),
        ({1: 3, 9: 1}, 3, {1: 4}),  # the rest joins the last bin; 1 1 1 9
        ({1: 3, 4: 3, 7: 1, 8: 1}, 3, {1: 3, 4: 5}),  # 4 4 4 7 8
        ({1: 1, 5: 1, 6: 1, 9: 1}, 4, {5: 4}),  # of two middle values the lower
        ({4: 1, 6: 1}, 5, {4: 2}),
        ({-7: 2, -9: 2}, 4, {-9: 4}),
        ({5: 1, 6: 2}, 1, {5: 1, 6: 2}),
        ({}, 3, {}),
    ],
)
def test_neighbours_are_merged_from_the_smallest_up(
    histogram: dict[int, int], at_least: int, expected: dict[int, int]
) -> None:
    assert coarsened(histogram, at_least) == expected


@given(counts, st.integers(1, 60))
def test_coarse_bins_keep_the_total_hold_enough_and_stay_when_coarsened_again(
    histogram: dict[int, int], at_least: int
) -> None:
    coarse = coarsened(histogram, at_least)
    total = sum(histogram.values())
    assert sum(coarse.values()) == total
    assert min(coarse.values()) >= min(at_least, total)
    assert coarsened(coarse, at_least) == coarse
    assert list(coarse) == sorted(coarse)


@given(counts, st.integers(3, 60))
def test_a_value_of_one_alone_at_either_end_is_never_shown(
    histogram: dict[int, int], at_least: int
) -> None:
    histogram = {**histogram, -6000: 1, 6000: 1}
    assert not {-6000, 6000} & set(coarsened(histogram, at_least))


def test_the_largest_move_compares_values_of_the_same_rank() -> None:
    # 1 1 5 9 against 2 2 2 9
    assert largest_move({1: 2, 5: 1, 9: 1}, {2: 3, 9: 1}) == 3
    assert largest_move({4: 2}, {4: 2}) == 0
    assert largest_move({}, {}) == 0


@given(counts, st.integers(1, 60))
def test_the_largest_move_equals_that_of_the_expanded_values(
    histogram: dict[int, int], at_least: int
) -> None:
    coarse = coarsened(histogram, at_least)
    before, after = (
        np.repeat(sorted(bins), [bins[value] for value in sorted(bins)])
        for bins in (histogram, coarse)
    )
    assert largest_move(histogram, coarse) == np.abs(before - after).max()
