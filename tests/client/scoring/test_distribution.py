"""Means beside medians: what a few failures do to either."""

import math

import numpy as np
import pytest

from client.scoring.distribution import distribution


def test_the_penalty_of_failures_inflates_a_mean_as_in_the_literature() -> None:
    # BraTS 2021, 570 test cases: 87 failures at 374 mm; mean 63.15 mm, 7.16 mm over the rest.
    rest = np.random.default_rng(0).exponential(7.16, 483)
    rest *= 7.16 / rest.mean()
    everything = distribution([*rest.tolist(), *[374.0] * 87])
    assert everything.n_cases == 570
    assert everything.mean == pytest.approx(63.15, abs=0.005)
    assert distribution(rest.tolist()).mean == pytest.approx(7.16, abs=1e-12)
    assert everything.median < 10  # which the failures hardly move
    assert everything.q3 < 374


def test_quartiles_are_interpolated() -> None:
    found = distribution([4.0, 1.0, 3.0, 2.0])
    assert (found.q1, found.median, found.q3) == (1.75, 2.5, 3.25)
    assert found.sd == pytest.approx(1.2909944487358056, abs=1e-15)


def test_a_missing_value_is_left_out_and_not_counted() -> None:
    found = distribution([1.0, math.nan])
    assert (found.n_cases, found.mean, found.median) == (1, 1.0, 1.0)
    assert math.isnan(found.sd)


def test_of_no_value_nothing_is_known() -> None:
    found = distribution([math.nan])
    assert found.n_cases == 0
    assert math.isnan(found.mean)
