"""The optional steps of a plan on each MRI channel, in their order, before normalisation."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.preparation.quantiles import clipped_to_percentiles, matched_to_landmarks
from common.axes import Image, SpacingMm
from common.planning.plan import Normalization
from common.planning.preparation import Preparation

Volume = NDArray[np.float32]


def enhanced(
    image: Image,
    spacing_mm: SpacingMm,
    preparation: Preparation,
    rules: Sequence[Normalization],
) -> Image:
    """Return the image with the plan's optional steps applied; a CT channel is left alone.

    Args:
        image: axes (channel, z, y, x).
        spacing_mm: along (z, y, x).
        preparation: the steps.
        rules: one per channel; they tell CT from MRI and name the channels.

    Returns:
        `image` itself when there is nothing to do.
    """
    if preparation == Preparation():
        return image
    steps = zip(image, rules, strict=True)
    return np.stack([_enhanced(volume, spacing_mm, preparation, rule) for volume, rule in steps])


def _enhanced(
    channel: Volume, spacing_mm: SpacingMm, preparation: Preparation, rule: Normalization
) -> Volume:
    if rule.scheme == "ct":
        return channel
    from client.preparation.filters import (  # loads SimpleITK: 0.1 s, seldom needed
        bias_corrected,
        diffused,
    )

    if preparation.n4_bias_correction:
        channel = bias_corrected(channel, spacing_mm)
    if preparation.diffusion is not None:
        channel = diffused(channel, spacing_mm, preparation.diffusion)
    if preparation.clip_percentiles is not None:
        channel = clipped_to_percentiles(channel, preparation.clip_percentiles)
    landmarks = (preparation.histogram_landmarks or {}).get(rule.channel)
    return channel if landmarks is None else matched_to_landmarks(channel, landmarks)
