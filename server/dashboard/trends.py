"""Whether training goes wrong: a loss that rises again, a validation Dice that falls.

Robust rules: single bad rounds do not raise them, and the noise between rounds is measured.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from server.dashboard.means import mean_over
from server.dashboard.method_rounds import Curve, Values

WINDOW = 5  # rounds; a median of 5 ignores two bad ones
FEWEST_ROUNDS = 8  # below that there is no noise to compare with
NOISE_DEVIATIONS = 4.0  # normal noise does so once in 30,000 rounds
SHARE_LOST = 0.5  # of what training has gained
LEAST_RISE = 0.05  # of a loss of about 1
LEAST_DROP = 0.1  # of Dice; from round to round it changes by a few hundredths
TO_DEVIATION = 1.4826  # of a normal distribution, from its median absolute deviation


@dataclass(frozen=True)
class Trend:
    """What went wrong."""

    since_round: int
    """The first one of the present stretch."""
    best: float
    best_round: int
    now: float


def rising_loss(loss: Curve) -> Trend | None:
    """Return how a loss rises again, or None if it does not.

    It does when the median of the last `WINDOW` rounds lies above the lowest such median so far by
    more than half of what had been gained, `NOISE_DEVIATIONS` of the noise, and `LEAST_RISE`; or
    when it is not finite.

    Args:
        loss: mean over sites of finished rounds.
    """
    values = loss.values
    if len(values) and not np.isfinite(values[-1]):
        return Trend(int(loss.rounds[-1]), float("nan"), int(loss.rounds[0]), float(values[-1]))
    if len(values) < FEWEST_ROUNDS:
        return None
    smooth = np.median(sliding_window_view(values, WINDOW), axis=1)
    lowest = np.minimum.accumulate(smooth)
    allowed = np.maximum(SHARE_LOST * (smooth[0] - lowest), NOISE_DEVIATIONS * noise(values))
    since = _last_stretch(smooth > lowest + np.maximum(allowed, LEAST_RISE))
    if since is None:
        return None
    rounds = loss.rounds[WINDOW - 1 :]
    best = int(np.argmin(smooth))
    return Trend(int(rounds[since]), float(smooth[best]), int(rounds[best]), float(smooth[-1]))


def falling_dice(dice: Values, rounds: NDArray[np.int64]) -> Trend | None:
    """Return how far the validation Dice fell below its best, or None if it did not.

    Args:
        dice: (round, site), mean over regions; NaN where a site does not say. Only sites that say
            it of both rounds are compared, so that a site which leaves changes nothing.
        rounds: their numbers.
    """
    if len(rounds) < 2:
        return None
    mean = mean_over(dice, axis=1)
    if np.isnan(mean).all():
        return None
    best = int(np.nanargmax(mean))
    fallen = mean_over(dice[best] - dice, axis=1) > LEAST_DROP
    since = _last_stretch(fallen & (np.arange(len(rounds)) > best))
    if since is None:
        return None
    return Trend(int(rounds[since]), float(mean[best]), int(rounds[best]), float(mean[-1]))


def noise(values: Values) -> float:
    """Return the deviation of the noise from round to round, whatever a few outliers do."""
    steps = np.diff(values)
    return float(TO_DEVIATION * np.median(np.abs(steps - np.median(steps)))) / float(np.sqrt(2))


def _last_stretch(is_so: NDArray[np.bool_]) -> int | None:
    """Return where the unbroken stretch up to the end begins, or None without one."""
    if not len(is_so) or not is_so[-1]:
        return None
    others = np.flatnonzero(~is_so)
    return int(others[-1]) + 1 if len(others) else 0
