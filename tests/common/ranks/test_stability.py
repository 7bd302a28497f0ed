"""Bootstrap intervals of ranks, and rankings without one method."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from common.ranks.case_ranks import Ranks, ranks_of
from common.ranks.stability import Resampling, WithoutMethod, bootstrap, without_each

METHODS = ("a", "b", "c")
HUNDRED = Resampling(n_samples=100, seed=4)


def ranks(*cases: tuple[float, float, float]) -> dict[str, Ranks]:
    """Return the ranks of three methods by their losses in one metric."""
    return {"north": ranks_of(np.array(cases).T[:, :, None], "min")}


def test_a_method_that_is_best_in_every_case_is_first_in_every_sample() -> None:
    found = bootstrap(
        ranks((1, 2, 3), (1, 3, 2), (1, 2, 3)), METHODS, HUNDRED, scheme="brats", ties="min"
    )
    assert found.intervals["a"].final_rank == (1, 1)
    assert found.intervals["a"].mean_rank == (1.0, 1.0)
    assert found.intervals["a"].first_fraction == 1.0
    assert found.intervals["b"].final_rank[0] >= 2
    assert (found.n_samples, found.seed, found.level) == (100, 4, 0.95)


def test_a_lead_that_hangs_on_one_case_is_shown_as_such() -> None:
    # a leads by one rank in one case of three; samples without it see equal methods or b first.
    close = ranks((1, 3, 9), (2, 1, 9), (1, 2, 9))
    found = bootstrap(close, METHODS, HUNDRED, scheme="brats", ties="min")
    assert found.intervals["a"].final_rank == (1, 2)
    assert found.intervals["b"].final_rank == (1, 2)
    assert found.intervals["c"].final_rank == (3, 3)


def test_the_same_seed_gives_the_same_intervals() -> None:
    data = ranks((1, 2, 3), (2, 1, 3), (3, 2, 1), (1, 3, 2))
    one, same, other = (
        bootstrap(data, METHODS, Resampling(n_samples=50, seed=seed), scheme="fets", ties="min")
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one.intervals != other.intervals


def test_every_institution_keeps_its_number_of_cases() -> None:
    # One case each: there is only one way to draw them again.
    split = {"x": ranks((1, 2, 3))["north"], "y": ranks((2, 1, 3))["north"]}
    found = bootstrap(split, METHODS, HUNDRED, scheme="brats", ties="min")
    assert found.intervals["a"].mean_rank == (1.5, 1.5)
    assert found.intervals["a"].final_rank == found.intervals["b"].final_rank == (1, 1)


def test_an_order_that_hangs_on_a_third_method_is_found() -> None:
    #             losses     ranks     sum    without c   sum
    #   a      1 1 3 3      1 1 3 3     8       1 1 2 2     6
    #   b      2 2 1 1      2 2 1 1     6       2 2 1 1     6
    #   c      9 9 2 2      3 3 2 2    10
    data = ranks((1, 2, 9), (1, 2, 9), (3, 1, 2), (3, 1, 2))
    assert without_each(data, METHODS, scheme="brats", ties="min") == (
        WithoutMethod(without="a", final_rank={"b": 1, "c": 2}, changed=()),
        WithoutMethod(without="b", final_rank={"a": 1, "c": 1}, changed=(("a", "c"),)),
        WithoutMethod(without="c", final_rank={"a": 1, "b": 1}, changed=(("a", "b"),)),
    )


def test_two_methods_leave_nothing_to_compare() -> None:
    data = {"north": ranks((1, 2, 3))["north"][:2]}
    assert without_each(data, METHODS[:2], scheme="brats", ties="min") == ()


@given(st.lists(st.tuples(*[st.integers(1, 3)] * 3), min_size=1, max_size=6), st.integers(0, 9))
def test_intervals_hold_places_that_exist(cases: list[tuple[int, int, int]], seed: int) -> None:
    settings = Resampling(n_samples=20, seed=seed)
    found = bootstrap(ranks(*cases), METHODS, settings, scheme="brats", ties="average")
    for interval in found.intervals.values():
        low, high = interval.final_rank
        assert 1 <= low <= high <= 3
        assert 1 <= interval.mean_rank[0] <= interval.mean_rank[1] <= 3
        assert 0 <= interval.first_fraction <= 1


def test_the_order_of_the_cases_is_irrelevant_to_the_intervals():
    rng = np.random.default_rng(0)
    drawn = rng.integers(1, 4, (3, 12, 2)).astype(np.float64)
    found = [
        bootstrap({"h": cases}, METHODS, HUNDRED, scheme="brats", ties="min")
        for cases in (drawn, drawn[:, rng.permutation(12)])
    ]
    assert found[0] == found[1]
