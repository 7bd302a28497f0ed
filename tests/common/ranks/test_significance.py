"""Wilcoxon tests and Holm's correction, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ranks.case_ranks import Pool
from common.ranks.significance import holm, wilcoxon_tests


def pool(a: list[float], b: list[float]) -> Pool:
    """Return two methods that differ in HD95 only, at one institution."""
    losses = np.zeros((2, len(a), 2))
    losses[0, :, 1], losses[1, :, 1] = a, b
    return Pool(("a", "b"), ("WT",), {"north": losses})


def p_values(a: list[float], b: list[float]) -> dict[tuple[str, str, str], tuple[float, float]]:
    tests = wilcoxon_tests(pool(a, b))
    assert {test.institution for test in tests} == {"north"}
    return {(test.metric, test.a, test.b): (test.p, test.p_holm) for test in tests}


def test_a_method_that_is_always_better() -> None:
    # Differences -1 ... -6: W = 0, mean 10.5, variance 22.75; z = (0 - 10.5 + 0.5) / 4.7697
    found = p_values([1, 2, 3, 4, 5, 6], [2, 4, 6, 8, 10, 12])
    assert found["hd95", "a", "b"] == pytest.approx((0.018016, 0.036032), abs=1e-6)
    # The other way round W = 21, so z = 11 / 4.7697.
    assert found["hd95", "b", "a"] == pytest.approx((0.989451, 0.989451), abs=1e-6)


def test_equal_methods_are_not_better_than_each_other() -> None:
    found = p_values([1, 2, 3], [1, 2, 3])
    assert set(found.values()) == {(1.0, 1.0)}
    assert ("dice", "a", "b") in found


def test_cases_without_difference_are_dropped() -> None:
    assert (
        p_values([0, 0, 1, 2, 3], [0, 0, 2, 4, 6])["hd95", "a", "b"]
        == p_values([1, 2, 3], [2, 4, 6])["hd95", "a", "b"]
    )


def test_holm_steps_down_and_keeps_the_order() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, then never less than before
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_makes_a_value_smaller_nor_changes_their_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(p <= q <= 1 for p, q in zip(values, corrected, strict=True))
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
