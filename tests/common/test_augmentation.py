"""The named presets hold the published numbers, and know how far each patch may be turned."""

from dataclasses import replace
from typing import get_args

import pytest

from common.augmentation import (
    PRESETS,
    Augmentation,
    Cascade,
    Change,
    PresetName,
    degrees_of,
    preset_of,
)


def test_every_name_has_a_preset() -> None:
    assert list(PRESETS) == list(get_args(PresetName))


def test_the_papers_column() -> None:
    preset = PRESETS["nnunet"]
    assert (preset.mirror, preset.rotation, preset.degrees) == (0.5, 0.2, 30)
    assert preset.scaling == Change(0.2, 0.7, 1.4)
    assert preset.noise == Change(0.15, 0, 0.1, "root")
    assert preset.blur == Change(0.2, 0.5, 1.5, per_channel=0.5)
    assert preset.brightness == Change(0.15, 0.7, 1.3)
    assert preset.contrast == Change(0.15, 0.65, 1.5)
    assert preset.low_resolution == Change(0.25, 1, 2, "reciprocal", per_channel=0.5)
    assert preset.gamma == preset.inverted_gamma == Change(0.15, 0.7, 1.5)
    assert (preset.low_resolution_order, preset.gamma_keeps_statistics) == (3, False)


def test_the_default_trainers_column() -> None:
    preset = PRESETS["nnunet-v2"]
    assert preset.noise == Change(0.1, 0, 0.1)
    assert preset.blur == Change(0.2, 0.5, 1.0, per_channel=0.5)
    assert preset.brightness == preset.contrast == Change(0.15, 0.75, 1.25, "halves")
    assert preset.low_resolution == Change(0.25, 0.5, 1, per_channel=0.5)
    assert preset.inverted_gamma == Change(0.1, 0.7, 1.5, "halves")
    assert preset.gamma == Change(0.3, 0.7, 1.5, "halves")
    assert (preset.low_resolution_order, preset.gamma_keeps_statistics) == (1, True)
    assert preset.cascade == Cascade(
        operator_probability=0.4,
        operator_radius=(1, 8),
        removal_probability=0.2,
        removal_max_fraction=0.15,
        per_label=0.5,
    )


def test_the_brats_presets_differ_in_the_brightness_of_each_channel() -> None:
    plain, star = PRESETS["brats2020"], PRESETS["brats2020-star"]
    assert plain.shift == Change(0.3, 0, 0.2, "normal")
    assert star.shift == Change(0.3, 0, 0.2, "normal", per_channel=0.5)
    assert replace(star, shift=plain.shift) == plain
    assert (plain.rotation, plain.scaling_per_axis) == (0.3, 0.3)
    assert (plain.scaling.low, plain.scaling.high) == (0.65, 1.6)
    assert (plain.gamma.low, plain.gamma.high) == (0.5, 1.6)
    assert plain.elastic == Change(0.3, 0, 0.25)


@pytest.mark.parametrize(
    ("patch_size", "in_plane", "degrees"),
    [
        ((128, 128, 128), False, 30),
        ((20, 320, 256), True, 180),
        ((256, 256), False, 180),
        ((192, 128), False, 180),  # 1.5 exactly
        ((200, 128), False, 15),
    ],
)
def test_a_patch_is_turned_as_far_as_its_shape_allows(
    patch_size: tuple[int, ...], in_plane: bool, degrees: float
) -> None:
    assert degrees_of(PRESETS["nnunet"], patch_size, in_plane=in_plane) == degrees


def test_the_configuration_overrides_mirroring_and_the_dropout_of_channels_only() -> None:
    for name, preset in PRESETS.items():
        assert preset_of(Augmentation(preset=name)) == preset
        changed = preset_of(Augmentation(preset=name, mirror=False, channel_dropout=0.1))
        assert changed == replace(preset, mirror=0.0, channel_dropout=0.1)
