"""Making the grey values of one channel comparable by its quantiles: clipping and matching.

Both look at the voxels that are not zero and leave zero voxels zero. Pure functions.

Source: Nyul, Udupa and Zhang 2000, "New variants of a method of MRI scale standardization".
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

ENDS: Final = (1.0, 99.0)  # percentiles of the first and the last landmark; Nyul 2000 drops tails

Volume = NDArray[np.float32]


def clipped_to_percentiles(channel: Volume, percentiles: tuple[float, float]) -> Volume:
    """Return the channel with the extremes of its non-zero voxels cut off.

    Args:
        channel: axes (z, y, x).
        percentiles: lower and upper, 0 to 100, linearly interpolated.
    """
    inside = channel != 0
    if not inside.any():
        return channel
    low, high = np.percentile(channel[inside], percentiles).astype(np.float32)
    clipped: Volume = np.where(inside, np.clip(channel, low, high), np.float32(0))
    return clipped


def landmarks_of(channel: Volume, count: int) -> NDArray[np.float64]:
    """Return evenly spaced percentiles of the non-zero voxels, from the 1st to the 99th.

    Args:
        channel: axes (z, y, x), with a voxel that is not zero.
        count: how many, at least 2.
    """
    wanted = np.linspace(*ENDS, count)
    landmarks: NDArray[np.float64] = np.percentile(channel[channel != 0].astype(np.float64), wanted)
    return landmarks


def matched_to_landmarks(channel: Volume, landmarks: Sequence[float]) -> Volume:
    """Map the channel's own landmarks onto those of a reference, linearly between them.

    Beyond the first and the last landmark the outermost piece is continued.

    Args:
        channel: axes (z, y, x).
        landmarks: of the reference, as `landmarks_of` returns them, ascending.

    Returns:
        The channel itself when it has fewer than two different landmarks.
    """
    inside = channel != 0
    if not inside.any():
        return channel
    own, first = np.unique(landmarks_of(channel, len(landmarks)), return_index=True)
    if own.size < 2:
        return channel
    wanted = np.asarray(landmarks, np.float64)[first]  # of equal landmarks the lowest counts
    slopes = np.diff(wanted) / np.diff(own)
    piece = np.clip(np.searchsorted(own, channel[inside]) - 1, 0, slopes.size - 1)
    matched = np.zeros_like(channel)
    matched[inside] = wanted[piece] + (channel[inside] - own[piece]) * slopes[piece]
    return matched
