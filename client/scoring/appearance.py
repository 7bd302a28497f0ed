"""How labels, images and scores look, wherever a person sees them: colours, grey, words."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from common.task import Task

# Okabe and Ito (https://jfly.uni-koeln.de/color): told apart by colour-blind readers, and all
# bright enough on a grey image. Further labels start again.
COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")
WINDOW_PERCENT = (1.0, 99.0)  # of the non-zero voxels: skull-stripped images are zero outside
METRIC_WORDS = {
    "dice": "Dice (fraction)",
    "hd95": "HD95 (mm)",
    "sensitivity": "Sensitivity (fraction)",
    "specificity": "Specificity (fraction)",
    "nsd": "Normalised surface Dice (fraction)",
    "volume_difference": "Volume difference (fraction)",
    "lesionwise_dice": "Lesion-wise Dice (fraction)",
    "lesionwise_hd95": "Lesion-wise HD95 (mm)",
}
"""Scores, by the name of their column."""


def colours_of(task: Task) -> Mapping[int, str]:
    """Return the colour of every label above background, as #rrggbb."""
    labels = enumerate(task.foreground_labels)
    return {label: COLOURS[index % len(COLOURS)] for index, label in labels}


def window_of(image: NDArray[np.float32]) -> tuple[float, float]:
    """Return which intensities are shown as black and as white; the second is the larger one."""
    inside = image[image != 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, WINDOW_PERCENT)
    return float(low), float(max(high, low + 1e-6))  # a constant image is shown dark, not divided
