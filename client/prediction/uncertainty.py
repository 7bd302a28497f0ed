"""How unsure a prediction is, voxel by voxel."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from common.axes import Probabilities
from common.config import Output


def normalised_entropy(probabilities: Probabilities, output: Output) -> NDArray[np.float32]:
    """Return the entropy of every voxel as a share of the largest possible one.

    Args:
        probabilities: axes (output, z, y, x); the mean over the models of an ensemble.
        output: labels exclude each other; of regions, which do not, the mean entropy is taken.

    Returns:
        Axes (z, y, x), range [0, 1]: 0 where one label is certain, 1 where all are as likely, or
        where every region is as likely as not.
    """
    if output == "labels":
        entropy = entr(probabilities).sum(axis=0) / np.log(len(probabilities))
    else:
        entropy = (entr(probabilities) + entr(1 - probabilities)).mean(axis=0) / np.log(2)
    share: NDArray[np.float32] = np.clip(entropy, 0, 1).astype(np.float32)
    return share
