"""Cropping, axis order, normalisation, and the way back."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from client.preparation.preprocess import (
    Geometry,
    foreground_index,
    nonzero_box,
    nonzero_mask,
    prepare,
    restore,
    uncrop,
)
from common.errors import ConfigError
from common.planning.plan import Configuration, Configuration2d, Normalization, Plan, PlannedFor
from common.planning.preparation import Preparation, Resampling

SIZES = st.tuples(*[st.integers(1, 6)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 1.7, 4.0])] * 3)
TRANSPOSES = st.permutations([0, 1, 2]).map(tuple)


def plan_of(
    *rules: Normalization,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    transpose: tuple[int, int, int] = (0, 1, 2),
) -> tuple[Plan, Configuration]:
    configuration = Configuration(
        spacing_mm=spacing_mm,
        median_shape=(8.0, 8.0, 8.0),
        patch_size=(8, 8, 8),
        batch_size=2,
        strides=(),
        kernel_sizes=((3, 3, 3),),
        features_per_stage=(8,),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )
    plan = Plan(
        schema=1,
        hash="0" * 64,
        rules="paper",
        planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
        channels=tuple(rule.channel for rule in rules),
        transpose=transpose,
        normalization=rules,
        configurations={"3d_fullres": configuration},
    )
    return plan, configuration


Z_SCORE = Normalization(channel="MRI", scheme="z-score")
MASKED = Normalization(channel="MRI", scheme="masked-z-score")
CT = Normalization(channel="CT", scheme="ct", clip_low=-10.0, clip_high=30.0, mean=10.0, std=20.0)


def test_the_box_holds_what_is_not_zero_in_any_channel() -> None:
    image = np.zeros((2, 6, 7, 8), np.float32)
    image[0, 1, 2, 3] = 5
    image[1, 4, 3, 6] = -5
    assert nonzero_box(image) == (slice(1, 5), slice(2, 4), slice(3, 7))


def test_the_box_of_an_empty_image_is_the_whole_image() -> None:
    assert nonzero_box(np.zeros((1, 2, 3, 4), np.float32)) == (
        slice(0, 2),
        slice(0, 3),
        slice(0, 4),
    )


def test_a_hole_inside_the_head_belongs_to_it() -> None:
    image = np.ones((1, 5, 5, 5), np.float32)
    image[0, 2, 2, 2] = 0  # enclosed
    image[0, 0, 0, 0] = 0  # at the corner, open to the outside
    mask = nonzero_mask(image)
    assert mask[2, 2, 2]
    assert not mask[0, 0, 0]
    assert mask.sum() == 124


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.just(2), *[st.integers(1, 5)] * 3),
        elements=st.sampled_from([0, 0, 1]),
    )
)
def test_filling_holes_agrees_with_scipy(image: np.ndarray) -> None:
    expected = ndimage.binary_fill_holes((image != 0).any(axis=0))
    np.testing.assert_array_equal(nonzero_mask(image), expected)


def test_z_score_uses_every_voxel_of_the_crop() -> None:
    image = np.zeros((1, 1, 3, 6), np.float32)
    image[0, 0, 1, 1:5] = [1, 2, 3, 6]  # mean 3, standard deviation sqrt(3.5)
    prepared = prepare(image, (1.0, 1.0, 1.0), None, *plan_of(Z_SCORE))
    np.testing.assert_allclose(
        prepared.image.ravel(), [-1.0690450, -0.5345225, 0.0, 1.6035675], atol=1e-6
    )
    assert prepared.image.dtype == np.float32
    assert prepared.labels is None


def test_masked_z_score_looks_inside_the_head_only() -> None:
    # .1.    the mask is a plus; its corners are outside and stay 0
    # 234    inside: mean 3, standard deviation sqrt(2)
    # .5.
    image = np.array([[[[0, 1, 0], [2, 3, 4], [0, 5, 0]]]], np.float32)
    prepared = prepare(image, (1.0, 1.0, 1.0), None, *plan_of(MASKED))
    np.testing.assert_allclose(
        prepared.image[0, 0],
        [[0, -1.4142136, 0], [-0.7071068, 0, 0.7071068], [0, 1.4142136, 0]],
        atol=1e-6,
    )


def test_ct_is_clipped_and_standardised_by_the_federation() -> None:
    image = np.array([[[[-100, -10, 10, 20, 30, 900]]]], np.float32)
    prepared = prepare(image, (1.0, 1.0, 1.0), None, *plan_of(CT))
    np.testing.assert_allclose(prepared.image.ravel(), [-1, -1, 0, 0.5, 1, 1], atol=1e-6)


def test_a_ct_channel_without_statistics_is_refused() -> None:
    incomplete = replace(CT, std=None)
    with pytest.raises(ConfigError, match="normalization of CT: expected clip_low"):
        prepare(np.ones((1, 2, 2, 2), np.float32), (1.0, 1.0, 1.0), None, *plan_of(incomplete))


@pytest.mark.parametrize("rule", [Z_SCORE, MASKED])
def test_a_constant_or_empty_image_becomes_zero(rule: Normalization) -> None:
    for value in (0, 7):
        image = np.full((1, 2, 2, 2), value, np.float32)
        prepared = prepare(image, (1.0, 1.0, 1.0), None, *plan_of(rule))
        assert prepared.image.tolist() == np.zeros((1, 2, 2, 2)).tolist()


def test_each_channel_follows_its_own_rule() -> None:
    image = np.stack([np.full((1, 1, 2), 30.0), [[[1.0, 3.0]]]]).astype(np.float32)
    prepared = prepare(image, (1.0, 1.0, 1.0), None, *plan_of(CT, Z_SCORE))
    np.testing.assert_allclose(prepared.image[:, 0, 0], [[1, 1], [-1, 1]], atol=1e-6)


def test_the_plan_puts_its_first_axis_first() -> None:
    image = np.arange(1, 25, dtype=np.float32).reshape(1, 2, 3, 4)
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plan, configuration = plan_of(Z_SCORE, transpose=(2, 0, 1))
    prepared = prepare(image, (1.0, 1.0, 1.0), labels, plan, configuration)
    assert prepared.image.shape == (1, 4, 2, 3)
    assert prepared.labels is not None
    assert prepared.labels[3, 1, 2] == labels[1, 2, 3]
    assert prepared.labels.flags.c_contiguous


def test_the_geometry_tells_the_way_back() -> None:
    image = np.zeros((1, 6, 6, 6), np.float32)
    image[:, 1:5, 2:4, 0:6] = 1
    plan, configuration = plan_of(Z_SCORE, spacing_mm=(2.0, 1.0, 1.0), transpose=(2, 0, 1))
    prepared = prepare(image, (1.0, 1.0, 1.0), None, plan, configuration)
    assert prepared.geometry == Geometry(
        full_shape=(6, 6, 6),
        box=((1, 5), (2, 4), (0, 6)),
        spacing_mm=(1.0, 1.0, 1.0),
        transpose=(2, 0, 1),
        network_spacing_mm=(2.0, 1.0, 1.0),
    )
    assert prepared.geometry.cropped_shape == (4, 2, 6)
    assert prepared.geometry.network_shape == prepared.image.shape[1:] == (3, 4, 2)


def test_uncropping_puts_background_around() -> None:
    geometry = Geometry(
        full_shape=(1, 3, 4),
        box=((0, 1), (1, 2), (1, 3)),
        spacing_mm=(1.0, 1.0, 1.0),
        transpose=(0, 1, 2),
        network_spacing_mm=(1.0, 1.0, 1.0),
    )
    labels = uncrop(np.array([[[2, 1]]], np.uint8), geometry)
    assert labels.tolist() == [[[0, 0, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]]


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, SIZES, elements=st.integers(-2, 2)), SPACINGS, SPACINGS, TRANSPOSES)
def test_a_prediction_returns_to_the_grid_of_its_image(
    volume: np.ndarray,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    transpose: tuple[int, int, int],
) -> None:
    plan, configuration = plan_of(Z_SCORE, spacing_mm=target, transpose=transpose)
    prepared = prepare(volume[None], spacing, None, plan, configuration)
    restored = restore(prepared.image, prepared.geometry)
    assert prepared.geometry.network_shape == prepared.image.shape[1:]
    assert restored.shape[1:] == prepared.geometry.cropped_shape
    assert uncrop((restored[0] > 0).astype(np.uint8), prepared.geometry).shape == volume.shape


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, SIZES, elements=st.integers(0, 3)), TRANSPOSES)
def test_without_resampling_labels_return_exactly(
    labels: np.ndarray, transpose: tuple[int, int, int]
) -> None:
    plan, configuration = plan_of(Z_SCORE, transpose=transpose)
    image = (labels > 0).astype(np.float32)[None]
    prepared = prepare(image, (1.0, 1.0, 1.0), labels, plan, configuration)
    assert prepared.labels is not None
    one_hot = np.stack([prepared.labels == value for value in range(4)]).astype(np.float32)
    back = restore(one_hot, prepared.geometry).argmax(axis=0).astype(np.uint8)
    assert uncrop(back, prepared.geometry).tolist() == labels.tolist()


def test_the_foreground_index_lists_every_voxel_of_each_class_that_occurs() -> None:
    labels = np.array([[[0, 1], [2, 1]]], np.uint8)
    index = foreground_index(labels, (1, 2, 4))
    assert {value: rows.tolist() for value, rows in index.items()} == {
        1: [[0, 0, 1], [0, 1, 1]],
        2: [[0, 1, 0]],
    }
    assert index[1].dtype == np.int32


def test_the_foreground_index_keeps_ten_thousand_voxels_of_a_large_class() -> None:
    labels = np.ones((30, 30, 30), np.uint8)
    rows = foreground_index(labels, (1,))[1]
    assert rows.shape == (10_000, 3)
    assert len(np.unique(rows, axis=0)) == 10_000
    assert rows.tolist() == foreground_index(labels, (1,))[1].tolist()


def test_the_foreground_index_keeps_one_percent_of_a_huge_class() -> None:
    assert len(foreground_index(np.ones((110, 100, 100), np.uint8), (1,))[1]) == 11_000


WAVES = np.random.default_rng(5).normal(100, 20, (1, 8, 10, 12)).astype(np.float32)


def test_by_the_papers_rules_the_score_is_of_the_resampled_image() -> None:
    plan, configuration = plan_of(Z_SCORE, spacing_mm=(1.0, 1.5, 0.7))
    prepared = prepare(WAVES, (1.0, 1.0, 1.0), None, plan, configuration)
    assert prepared.image.std() == pytest.approx(1, abs=1e-5)


def test_by_the_rules_of_nnunetv2_the_resampled_image_is_of_the_score() -> None:
    plan, configuration = plan_of(Z_SCORE, spacing_mm=(1.0, 2.0, 2.0))
    prepared = prepare(WAVES, (1.0, 1.0, 1.0), None, replace(plan, rules="v2"), configuration)
    assert prepared.image.std() < 0.9  # interpolation of noise lowers its deviation


def test_by_the_rules_of_nnunetv2_the_largest_share_wins_and_outside_is_a_label_of_its_own() -> (
    None
):
    # Eight voxels become one: three of label 1, one of label 2, two of background in the head and
    # two outside. No label has half of them; the largest has three eighths.
    image = np.ones((1, 2, 4, 4), np.float32)
    image[0, :, 0, 0] = 0
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[:, 1, 1] = labels[0, 0, 1] = 1
    labels[1, 0, 1] = 2
    plan, configuration = plan_of(Z_SCORE, spacing_mm=(2.0, 2.0, 2.0))
    by_paper = prepare(image, (1.0, 1.0, 1.0), labels, plan, configuration).labels
    by_v2 = prepare(image, (1.0, 1.0, 1.0), labels, replace(plan, rules="v2"), configuration).labels
    assert by_paper is not None
    assert by_v2 is not None
    assert by_paper.tolist() == [[[0, 0], [0, 0]]]
    assert by_v2.tolist() == [[[1, 0], [0, 0]]]
    assert by_v2.dtype == np.uint8


def in_2d(plan: Plan, spacing_mm: tuple[float, float]) -> tuple[Plan, Configuration2d]:
    configuration = Configuration2d(
        spacing_mm=spacing_mm,
        median_shape=(8.0, 8.0),
        patch_size=(8, 8),
        batch_size=2,
        strides=(),
        kernel_sizes=((3, 3),),
        features_per_stage=(8,),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )
    return replace(plan, configurations={"2d": configuration}), configuration


def test_a_2d_configuration_keeps_the_distance_of_the_slices() -> None:
    plan, configuration = in_2d(plan_of(Z_SCORE, transpose=(1, 0, 2))[0], (1.0, 0.5))
    labels = (WAVES[0] > 110).astype(np.uint8)
    prepared = prepare(WAVES, (2.0, 2.5, 1.5), labels, plan, configuration)
    assert prepared.geometry.network_spacing_mm == (2.5, 1.0, 0.5)
    assert prepared.image.shape == (1, 10, 16, 36)  # slices across y; z 8 * 2 / 1, x 12 * 1.5 / 0.5
    assert prepared.labels is not None
    assert prepared.labels.shape == prepared.geometry.network_shape == (10, 16, 36)
    assert restore(prepared.image, prepared.geometry).shape == WAVES.shape


def test_a_2d_configuration_interpolates_within_slices_only() -> None:
    image = np.ones((1, 3, 6, 6), np.float32) * np.array([1, 2, 4])[:, None, None]
    plan, configuration = in_2d(plan_of(CT)[0], (0.5, 0.7))
    prepared = prepare(image.astype(np.float32), (1.0, 1.0, 1.0), None, plan, configuration)
    for index, value in enumerate((-0.45, -0.4, -0.3)):  # (1, 2, 4 minus 10) / 20
        np.testing.assert_allclose(prepared.image[0, index], value, atol=1e-6)


def test_the_optional_steps_of_a_plan_are_taken_before_normalisation() -> None:
    image = np.arange(1, 102, dtype=np.float32).reshape(1, 1, 1, 101)  # percentile p is 1 + p
    plan, configuration = plan_of(CT, Z_SCORE)
    plan = replace(plan, preparation=Preparation(clip_percentiles=(20.0, 80.0)))
    both = np.concatenate([image, image])
    prepared = prepare(both, (1.0, 1.0, 1.0), None, plan, configuration)
    assert len(np.unique(prepared.image[0])) == 30  # CT: 1 to 30 HU by its own rule
    assert len(np.unique(prepared.image[1])) == 61


def test_the_way_back_follows_the_plans_resampling() -> None:
    plan, configuration = plan_of(Z_SCORE, spacing_mm=(1.0, 1.0, 2.0))
    plan = replace(plan, resampling=Resampling(probability_order=0))
    prepared = prepare(WAVES, (1.0, 1.0, 1.0), None, plan, configuration)
    assert prepared.geometry.resampling == plan.resampling
    back = restore(prepared.image, prepared.geometry)
    np.testing.assert_array_equal(back[..., 0::2], back[..., 1::2])
