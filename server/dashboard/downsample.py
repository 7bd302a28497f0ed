"""Curves for a display: few points, with every peak still on them."""

from itertools import pairwise

import numpy as np

from server.dashboard.method_rounds import Curve

MOST_POINTS = 400  # a chart is about a thousand pixels wide


def downsampled(curve: Curve, most_points: int = MOST_POINTS) -> Curve:
    """Return a curve with at most so many points: of each stretch its lowest and highest value.

    Args:
        curve: by round, ascending.
        most_points: at least 4; a shorter curve is returned as it is.

    Returns:
        Points of the curve, the first and the last one among them.
    """
    n = len(curve.rounds)
    if n <= most_points:
        return curve
    n_stretches = (most_points - 2) // 2
    edges = np.linspace(0, n, n_stretches + 1).astype(np.int64)
    kept = {0, n - 1}
    for begin, end in pairwise(edges.tolist()):
        stretch = curve.values[begin:end]
        kept.add(begin + int(stretch.argmin()))
        kept.add(begin + int(stretch.argmax()))
    places = np.array(sorted(kept))
    return Curve(curve.rounds[places], curve.values[places])
