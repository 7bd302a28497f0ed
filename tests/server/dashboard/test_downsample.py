"""Curves for a display keep their ends and their peaks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.dashboard.downsample import downsampled
from server.dashboard.method_rounds import Curve


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(4, 50))
def test_peaks_and_ends_stay_and_points_are_few(values: list[float], most: int) -> None:
    curve = Curve(np.arange(len(values)) * 2, np.array(values))
    found = downsampled(curve, most)
    assert len(found.rounds) <= max(most, 0)
    if not values:
        return
    assert found.values.min() == min(values)
    assert found.values.max() == max(values)
    assert (found.rounds[0], found.rounds[-1]) == (0, 2 * (len(values) - 1))
    assert (np.diff(found.rounds) > 0).all()
    assert (curve.values[found.rounds // 2] == found.values).all()


def test_a_short_curve_stays_as_it_is() -> None:
    curve = Curve(np.array([1, 2]), np.array([0.5, 0.25]))
    assert downsampled(curve, 4) is curve
