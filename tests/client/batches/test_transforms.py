"""What each change of intensities does, by hand-calculated values on a few voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from client.batches.augmentation import Drawn, Frame, draw
from client.batches.transforms import (
    bend,
    blur,
    change_intensities,
    make_coarse,
    normal_noise,
    refining,
    smoothing,
    stretch_contrast,
)
from common.augmentation import PRESETS, Preset

CPU = torch.device("cpu")
PLAIN = PRESETS["none"]


def line(*values: float) -> Tensor:
    """Return a volume of one row."""
    return torch.tensor([[values]], dtype=torch.float32)


def neutral(n_channels: int = 1, **changes: object) -> Drawn:
    """Return what leaves one sample as it is, but for some fields."""
    plain = draw(PLAIN, Frame(1, n_channels, (1, 1, 4)), np.random.default_rng(0))
    fields = {
        name: np.broadcast_to(np.float32(value), getattr(plain, name).shape).copy()
        for name, value in changes.items()
    }
    return replace(plain, **fields)


def changed(images: Tensor, drawn: Drawn, preset: Preset = PLAIN, masked: tuple = ()) -> Tensor:
    after = images.clone()
    change_intensities(after, drawn, 0, preset, normal_noise(0, CPU), masked)
    return after


def test_neutral_numbers_leave_the_images_alone_bit_for_bit() -> None:
    images = torch.randn(2, 3, 4, 5)
    assert torch.equal(changed(images, neutral(2)), images)


def test_brightness_multiplies_and_shift_adds() -> None:
    assert changed(line(1, 2, 4)[None], neutral(brightness=0.75)).ravel().tolist() == [0.75, 1.5, 3]
    assert changed(line(1, 2, 4)[None], neutral(shift=0.5)).ravel().tolist() == [1.5, 2.5, 4.5]


def test_each_channel_has_its_own_strength() -> None:
    drawn = neutral(2)
    drawn.brightness[0] = (0.75, 1.25)
    assert changed(torch.ones(2, 1, 1, 2), drawn).ravel().tolist() == [0.75, 0.75, 1.25, 1.25]


@pytest.mark.parametrize(("factor", "expected"), [(0.5, [1.5, 2, 3, 5.5]), (1.5, [0, 0, 3, 8])])
def test_contrast_stretches_about_the_mean_and_stays_in_the_range(
    factor: float, expected: list[float]
) -> None:
    volume = line(0, 1, 3, 8)  # mean 3; stretched, 0 would become -1.5 and 8 become 10.5
    stretch_contrast(volume, factor)
    assert volume.ravel().tolist() == pytest.approx(expected)


def test_gamma_bends_intensities_and_keeps_mean_and_deviation() -> None:
    volume = line(0, 1, 2)
    bend(volume, np.float32(2), keep_statistics=True)
    # 0, 0.25, 1 after bending: mean 5/12, deviation 0.42492; brought back to 1 and 0.81650
    assert volume.ravel().tolist() == pytest.approx([0.1993592, 0.6797436, 2.1208972], abs=1e-5)


def test_gamma_bends_intensities_and_keeps_the_range() -> None:
    volume = line(1, 2, 3)
    bend(volume, np.float32(2), keep_statistics=False)
    assert volume.ravel().tolist() == pytest.approx([1, 1.5, 3], abs=1e-5)


def test_inverted_gamma_bends_from_the_other_end() -> None:
    after = changed(
        line(1, 2, 3)[None], neutral(inverted_gamma=2), replace(PLAIN, gamma_keeps_statistics=False)
    )
    # negative: -1, -2, -3 within -3 and -1 is 1, 0.5, 0; squared 1, 0.25, 0
    assert after.ravel().tolist() == pytest.approx([1, 2.5, 3], abs=1e-5)


@pytest.mark.parametrize("keep_statistics", [True, False])
def test_gamma_leaves_a_constant_channel_as_it_is(keep_statistics: bool) -> None:
    volume = line(3, 3, 3)
    bend(volume, np.float32(1.3), keep_statistics=keep_statistics)
    assert volume.ravel().tolist() == [3, 3, 3]


def test_noise_has_the_deviation_that_was_drawn_and_differs_between_channels() -> None:
    noisy = changed(torch.zeros(2, 40, 40, 40), neutral(2, noise_std=0.3))
    assert noisy.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.3, 0.3], abs=0.005)
    assert not torch.equal(noisy[0], noisy[1])


def test_blur_spreads_a_voxel_along_each_axis_by_its_own_deviation() -> None:
    volume = torch.zeros(1, 9, 9)
    volume[0, 4, 4] = 1
    blur(volume, (1.0, 0.5, 0.0))
    # a Gaussian of deviation 0.5, cut off at 4 deviations: 1, e^-2, e^-8 over their sum 1.271342
    assert volume[0, 2:7, 4].tolist() == pytest.approx(
        [0.000264, 0.106451, 0.786571, 0.106451, 0.000264], abs=1e-6
    )
    assert float(volume.sum()) == pytest.approx(1)
    assert torch.count_nonzero(volume[0, :, :4]) == 0


def test_blur_reflects_at_the_border_and_is_scipys_filter() -> None:
    volume = line(1, 0, 0, 0, 0, 0)
    blur(volume, (0, 0, 0.5))
    # the first voxel sees itself twice: 0.786571 + 0.106451
    assert volume.ravel()[:3].tolist() == pytest.approx([0.893022, 0.106715, 0.000264], abs=1e-6)


def test_blur_leaves_a_constant_image_alone_up_to_its_border() -> None:
    volume = torch.full((5, 6, 7), 2.0)
    blur(volume, (1.5, 1.0, 0.7))
    assert torch.allclose(volume, torch.tensor(2.0))


def test_low_resolution_keeps_the_nearest_voxels_and_goes_straight_between_them() -> None:
    volume = line(0, 10, 20, 30)
    make_coarse(volume, (1.0, 1.0, 0.5), 1)
    # two voxels, centred on 1 and 3 of 4: the voxels 1 and 3; back at 0.25, 0.75, 1.25, 1.75
    assert volume.ravel().tolist() == pytest.approx([10, 15, 25, 30])


def test_cubic_low_resolution_goes_smoothly_between_the_voxels() -> None:
    volume = line(*range(0, 160, 10))
    make_coarse(volume, (1.0, 1.0, 0.5), 3)
    assert volume.ravel()[6:10].tolist() == pytest.approx([65, 75, 85, 95], abs=0.2)


def test_axes_whose_zoom_is_one_keep_every_voxel() -> None:
    volume = torch.randn(4, 1, 6)
    before = volume.clone()
    make_coarse(volume, (1.0, 0.5, 1.0), 1)
    assert torch.equal(volume, before)


def test_a_flat_patch_is_made_coarse_in_its_planes_only() -> None:
    drawn = replace(neutral(zoom=0.5), in_plane=True)
    images = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 4, 4).clone()
    after = changed(images, drawn)
    assert torch.allclose(after, images, rtol=0, atol=1e-6)  # rounding differs between processors


def test_slices_are_changed_as_volumes_are() -> None:
    drawn = draw(PLAIN, Frame(1, 1, (4, 4)), np.random.default_rng(0))
    drawn.blur[0, 0] = (0.0, 0.5)
    drawn.zoom[0, 0] = 0.5
    images = torch.arange(4.0).reshape(1, 4, 1).expand(1, 4, 4).clone()
    linear = replace(PLAIN, low_resolution_order=1)
    assert changed(images, drawn, linear)[0, :, 2].tolist() == pytest.approx([1, 1.5, 2.5, 3])


def test_the_outside_of_the_brain_stays_zero_where_the_normalisation_made_it_so() -> None:
    images = torch.tensor([[0.0, 0.0, 2.0], [0.0, 5.0, 0.0]]).reshape(2, 1, 1, 3)
    keeps = replace(PLAIN, outside_stays_zero=True)
    after = changed(images, neutral(2, shift=1), keeps, masked=(True, False))
    assert after[:, 0, 0].tolist() == [[0, 0, 3], [1, 6, 1]]  # by the masked channel's own zeros
    both = changed(images, neutral(2, shift=1), keeps, masked=(True, True))
    assert both[:, 0, 0].tolist() == [[0, 1, 3], [0, 6, 1]]
    assert changed(images, neutral(2, shift=1), keeps)[:, 0, 0].tolist() == [[1, 1, 3], [1, 6, 1]]


def test_a_dropped_channel_is_zero_and_the_other_is_not_touched() -> None:
    drawn = neutral(2)
    drawn.dropped[0] = (True, False)
    assert changed(torch.ones(2, 1, 1, 2), drawn).ravel().tolist() == [0, 0, 1, 1]


def test_the_matrices_leave_constants_alone() -> None:
    for matrix in (smoothing(9, 2.0), refining(5, 9, 3)):
        assert matrix.sum(dim=1).tolist() == pytest.approx([1] * 9, abs=1e-5)
