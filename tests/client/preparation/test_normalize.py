"""What a scale does to the values of a channel; whole cases are in test_preprocess."""

import numpy as np

from client.preparation.normalize import normalise
from common.planning.plan import Normalization

Z_SCORE = Normalization(channel="MRI", scheme="z-score")


def test_a_large_offset_does_not_cost_digits() -> None:
    image = np.full((1, 100, 100, 100), 30_000, np.float32)
    image[0, ::2] = 30_002  # mean 30001, standard deviation 1
    scores = normalise(image, (Z_SCORE,), None)
    assert np.unique(scores).tolist() == [-1.0, 1.0]


def test_the_image_is_left_as_it_was() -> None:
    image = np.array([[[[1, 2, 3]]]], np.float32)
    normalise(image, (Z_SCORE,), None)
    assert image.tolist() == [[[[1, 2, 3]]]]
