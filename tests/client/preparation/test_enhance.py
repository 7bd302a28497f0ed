"""Which channel gets which optional step."""

import numpy as np

from client.preparation.enhance import enhanced
from common.planning.plan import Normalization
from common.planning.preparation import Diffusion, Preparation

SPACING_MM = (1.0, 1.0, 1.0)
MRI = Normalization(channel="T1", scheme="z-score")
OTHER = Normalization(channel="FLAIR", scheme="masked-z-score")
CT = Normalization(channel="CT", scheme="ct")
RAMP = np.array([[[0, *range(100, 201)]]], np.float32)  # percentile p of the tissue is 100 + p


def test_nothing_is_done_unless_the_plan_asks_for_it() -> None:
    image = RAMP[None]
    assert enhanced(image, SPACING_MM, Preparation(), (MRI,)) is image


def test_a_ct_channel_is_left_alone() -> None:
    volume = np.random.default_rng(2).uniform(100, 200, (6, 7, 8)).astype(np.float32)
    image = np.stack([volume, volume])
    everything = Preparation(
        n4_bias_correction=True,
        diffusion=Diffusion(n_iterations=2, conductance=1.0),
        clip_percentiles=(1.0, 99.0),
        histogram_landmarks={"CT": (1.0, 2.0), "T1": (1.0, 2.0)},
    )
    found = enhanced(image, SPACING_MM, everything, (CT, MRI))
    assert found[0].tolist() == volume.tolist()
    assert 0 < found[1].min() < found[1].max() < 3


def test_landmarks_belong_to_a_channel_by_name() -> None:
    image = np.stack([RAMP, RAMP])
    landmarks = Preparation(histogram_landmarks={"FLAIR": (0.0, 980.0)})
    found = enhanced(image, SPACING_MM, landmarks, (MRI, OTHER))
    assert found[0].tolist() == RAMP.tolist()
    assert found[1, 0, 0, [0, 2, 52]].tolist() == [0, 0, 500]  # ten times as steep, from 101


def test_extremes_are_clipped_before_landmarks_are_matched() -> None:
    both = Preparation(clip_percentiles=(1.0, 99.0), histogram_landmarks={"T1": (0.0, 98.0)})
    found = enhanced(RAMP[None], SPACING_MM, both, (MRI,))
    assert found[0, 0, 0, 1] == found[0, 0, 0, 2]
    assert found[0, 0, 0, 100] == found[0, 0, 0, 101]
