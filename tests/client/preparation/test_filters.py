"""The filters are SimpleITK's; what is tested is what they must do to images of known making."""

import numpy as np
import pytest

from client.preparation.filters import bias_corrected, diffused
from common.planning.preparation import Diffusion

SPACING_MM = (2.0, 2.0, 2.0)


def head(size: int = 40) -> np.ndarray:
    """Return a ball of two tissues, 300 inside and 600 in the shell, zero outside."""
    z, y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.sqrt(z**2 + y**2 + x**2)
    return np.select([radius < 0.5, radius < 0.9], [300.0, 600.0], 0.0).astype(np.float32)


def spread(channel: np.ndarray, tissue: np.ndarray) -> float:
    """Return the coefficient of variation within one tissue."""
    return float(channel[tissue].std() / channel[tissue].mean())


def test_n4_flattens_a_known_field() -> None:
    clean = head()
    noise = np.random.default_rng(3).normal(1, 0.01, clean.shape)
    field = np.exp(0.5 * np.linspace(-1, 1, 40))  # from 0.61 to 1.65 along x
    biased = (clean * noise * field).astype(np.float32)
    corrected = bias_corrected(biased, SPACING_MM)
    for value in (300, 600):
        assert spread(biased, clean == value) > 0.1
        assert spread(corrected, clean == value) < 0.04
    assert (corrected[clean == 0] == 0).all()
    assert corrected.dtype == np.float32


def test_n4_gives_the_same_twice_and_leaves_alone_what_holds_no_field() -> None:
    clean = head(16)
    assert (bias_corrected(clean, SPACING_MM) == bias_corrected(clean, SPACING_MM)).all()
    for nothing in (np.zeros((4, 4, 4), np.float32), np.ones((1, 9, 9), np.float32)):
        assert bias_corrected(nothing, SPACING_MM) is nothing


def test_diffusion_keeps_a_constant_image() -> None:
    constant = np.full((6, 7, 8), 5, np.float32)
    assert (diffused(constant, SPACING_MM, Diffusion(n_iterations=5, conductance=1.0)) == 5).all()


def test_diffusion_smooths_noise_and_keeps_the_edge() -> None:
    clean = head()
    noisy = np.where(clean > 0, clean + np.random.default_rng(1).normal(0, 20, clean.shape), 0)
    smoothed = diffused(
        noisy.astype(np.float32), SPACING_MM, Diffusion(n_iterations=10, conductance=1.0)
    )
    z, y, x = np.mgrid[-1:1:40j, -1:1:40j, -1:1:40j]
    radius = np.sqrt(z**2 + y**2 + x**2)
    for value, (low, high) in {300: (0.0, 0.4), 600: (0.6, 0.8)}.items():
        tissue = (radius >= low) & (radius < high)
        assert smoothed[tissue].std() < 0.5 * noisy[tissue].std()
        assert smoothed[tissue].mean() == pytest.approx(value, rel=0.01)
    assert (smoothed[clean == 0] == 0).all()


def test_one_step_of_diffusion_is_that_of_perona_and_malik() -> None:
    # One voxel of 1 among zeros would stay outside the tissue, so the ground is 1 and the voxel 2.
    # ITK scales the conductance by the mean squared gradient. A weak conductance stops all flow.
    image = np.ones((5, 5, 5), np.float32)
    image[2, 2, 2] = 2
    spacing_mm = (1.0, 1.0, 1.0)
    stopped = diffused(image, spacing_mm, Diffusion(n_iterations=1, conductance=0.01))
    flowing = diffused(image, spacing_mm, Diffusion(n_iterations=1, conductance=1000.0))
    assert stopped[2, 2, 2] == pytest.approx(2)
    # heat flow with time step 1/16 to six neighbours: 2 - 6/16, and each gets 1/16
    assert flowing[2, 2, 2] == pytest.approx(1.625, abs=1e-4)
    assert flowing[2, 2, 1] == pytest.approx(1.0625, abs=1e-4)
    assert flowing[0, 0, 0] == pytest.approx(1)
