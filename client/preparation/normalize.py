"""Bringing each channel to a common scale: z-score of the case, or the federation's for CT.

Source: nnU-Net (arXiv 1904.08128v2), methods "normalisation".
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.axes import Image, Mask
from common.errors import ConfigError
from common.planning.plan import Normalization

# Added to the standard deviation, nnU-Net 1.7.1. nnunetv2 takes max(std, 1e-8); unless a channel
# is constant, and then the score is 0 either way, float32 cannot tell the two apart.
STD_FLOOR: Final = 1e-8

Volume = NDArray[np.float32]


def normalise(image: Image, rules: Sequence[Normalization], mask: Mask | None) -> Image:
    """Return the image with every channel brought to scale by its own rule.

    Args:
        image: axes (channel, a, b, c).
        rules: one per channel.
        mask: the head, axes (a, b, c); needed where a rule is masked.

    Raises:
        ConfigError: when a CT channel lacks the federation's statistics.
    """
    normalised = np.empty(image.shape, np.float32)
    for channel, rule, out in zip(image, rules, normalised, strict=True):
        if rule.scheme == "ct":
            out[...] = _ct(channel, rule)
        elif rule.scheme == "masked-z-score" and mask is not None:
            out[...] = 0  # outside the head, as published
            out[mask] = _z_score(channel[mask])
        else:
            out[...] = _z_score(channel)
    return normalised


def _z_score(values: Volume) -> Volume:
    """Return (value - mean) / std; sums in double precision, because float32 loses digits."""
    if not values.size:
        return values
    scores: Volume = values - np.float32(values.mean(dtype=np.float64))
    variance = np.square(scores).mean(dtype=np.float64)
    scores /= np.float32(np.sqrt(variance) + STD_FLOOR)
    return scores


def _ct(channel: Volume, rule: Normalization) -> Volume:
    """Clip to the federation's foreground range and standardise by its mean and deviation."""
    if rule.clip_low is None or rule.clip_high is None or rule.mean is None or rule.std is None:
        raise ConfigError(
            f"plan: normalization of {rule.channel}: expected clip_low, clip_high, mean and std "
            "for the scheme 'ct', found them incomplete"
        )
    scores: Volume = np.clip(channel, np.float32(rule.clip_low), np.float32(rule.clip_high))
    scores -= np.float32(rule.mean)
    scores /= np.float32(rule.std + STD_FLOOR)
    return scores
