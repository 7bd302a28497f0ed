"""Where patches lie, which of them are forced onto foreground, and what augmentation does."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cache import CacheEntry, Meta
from client.patches import (
    Augmentation,
    Batch,
    apply_augmentation,
    augment,
    draw_augmentation,
    forced_onto_foreground,
    overlap,
    sample_batch,
)
from client.preprocess import Geometry, foreground_index


def entry_of(labels: np.ndarray, offset: float = 1.0) -> CacheEntry:
    """Return an entry held in memory, one channel; voxel i of the image is i + offset."""
    image = (np.arange(labels.size) + offset).astype(np.float32).reshape(1, *labels.shape)
    index = foreground_index(labels, (1, 2, 3))
    a, b, c = labels.shape
    geometry = Geometry(
        full_shape=(a, b, c),
        box=((0, a), (0, b), (0, c)),
        spacing_mm=(1.0, 1.0, 1.0),
        transpose=(0, 1, 2),
        network_spacing_mm=(1.0, 1.0, 1.0),
    )
    meta = Meta(
        geometry=geometry,
        channels=1,
        shape=(a, b, c),
        labelled=True,
        foreground_voxels={value: len(rows) for value, rows in index.items()},
    )
    entry = CacheEntry(Path("unused"), meta, in_memory=True)
    # what the entry would read from its folder
    vars(entry).update(_image=image, _labels=labels, foreground=index)
    return entry


def neutral(n_samples: int, n_channels: int) -> dict[str, object]:
    return {
        "mirrored": np.zeros((n_samples, 3), np.bool_),
        "noise_std": np.zeros(n_samples, np.float32),
        "noise_seed": 0,
        "brightness": np.ones((n_samples, n_channels), np.float32),
        "gamma": np.ones((n_samples, n_channels), np.float32),
    }


def batch_from(seed: int, shape: tuple[int, ...] = (3, 2, 4, 5, 6)) -> Batch:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal(shape, np.float32)
    return Batch(images, rng.integers(0, 3, (shape[0], *shape[2:])).astype(np.uint8))


@pytest.mark.parametrize(
    ("batch_size", "forced"),
    [(2, 1), (3, 1), (4, 1), (5, 2), (9, 3), (12, 4)],
)
def test_the_last_third_of_a_batch_is_forced(batch_size: int, forced: int) -> None:
    chosen = forced_onto_foreground(batch_size, np.random.default_rng(0))
    assert chosen == [False] * (batch_size - forced) + [True] * forced


def test_a_batch_of_one_is_forced_one_time_in_three() -> None:
    rng = np.random.default_rng(0)
    share = np.mean([forced_onto_foreground(1, rng) for _ in range(6000)])
    assert share == pytest.approx(1 / 3, abs=0.02)


def test_a_forced_patch_holds_the_foreground_in_its_middle() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[10, 11, 12] = 1
    batch = sample_batch([entry_of(labels)], (4, 6, 8), 2, np.random.default_rng(0))
    assert batch.labels[1, 2, 3, 4] == 1
    assert batch.images[1, 0, 2, 3, 4] == 10 * 400 + 11 * 20 + 12 + 1


def test_a_forced_patch_at_the_border_is_moved_inside() -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[0, 7, 4] = 3
    batch = sample_batch([entry_of(labels)], (4, 4, 4), 2, np.random.default_rng(0))
    assert batch.labels[1, 0, 3, 2] == 3
    assert (batch.images[1] > 0).all()  # no padding


def test_classes_of_a_case_are_drawn_equally_often_however_small() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:4] = 1
    labels[8, 8, 8] = 2
    rng = np.random.default_rng(0)
    batches = [sample_batch([entry_of(labels)], (1, 1, 1), 2, rng) for _ in range(1000)]
    drawn = [int(batch.labels[1, 0, 0, 0]) for batch in batches]
    assert drawn.count(1) + drawn.count(2) == 1000
    assert drawn.count(2) == pytest.approx(500, abs=60)


def test_free_patches_lie_anywhere_inside() -> None:
    entry = entry_of(np.zeros((4, 3, 2), np.uint8))
    rng = np.random.default_rng(0)
    firsts = {
        float(image[0, 0, 0, 0])
        for _ in range(300)
        for image in sample_batch([entry], (3, 2, 2), 2, rng).images
    }
    assert firsts == {1, 3, 7, 9}  # starts (0 or 1, 0 or 1, 0), also where no foreground exists


def test_every_case_is_drawn() -> None:
    entries = [entry_of(np.zeros((2, 2, 2), np.uint8), offset) for offset in (1, 101, 201)]
    rng = np.random.default_rng(0)
    firsts = [
        float(x)
        for _ in range(100)
        for x in sample_batch(entries, (2, 2, 2), 3, rng).images[:, 0, 0, 0, 0]
    ]
    assert set(firsts) == {1, 101, 201}
    assert firsts.count(1) == pytest.approx(100, abs=30)


def test_a_small_case_lies_in_the_middle_of_the_patch_with_zeros_around() -> None:
    labels = np.array([[[1, 2]]], np.uint8)
    batch = sample_batch([entry_of(labels)], (1, 2, 5), 2, np.random.default_rng(0))
    for sample in range(2):
        assert batch.images[sample, 0].tolist() == [[[0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]]
        assert batch.labels[sample].tolist() == [[[0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]]


def test_overlap_of_a_patch_that_sticks_out_on_both_sides() -> None:
    source, target = overlap((3, 10, 10), (-1, 2, 6), (6, 4, 4))
    assert source == (slice(0, 3), slice(2, 6), slice(6, 10))
    assert target == (slice(1, 4), slice(0, 4), slice(0, 4))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_the_same_generator_gives_the_same_batch(seed: int, batch_size: int) -> None:
    labels = np.zeros((7, 6, 5), np.uint8)
    labels[3:5, 2:4, 1:4] = 1
    entries = [entry_of(labels), entry_of(labels[:2], 1000)]
    first, second = (
        sample_batch(entries, (4, 4, 4), batch_size, np.random.default_rng(seed)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.images.shape == (batch_size, 1, 4, 4, 4)
    assert first.labels.shape == (batch_size, 4, 4, 4)


def test_image_and_labels_are_mirrored_alike() -> None:
    image = np.arange(1, 9, dtype=np.float32).reshape(1, 1, 2, 2, 2)
    batch = Batch(image, image[:, 0].astype(np.uint8))
    drawn = Augmentation(**(neutral(1, 1) | {"mirrored": np.array([[True, False, True]])}))
    mirrored = apply_augmentation(batch, drawn)
    assert mirrored.images[0, 0].tolist() == [[[6, 5], [8, 7]], [[2, 1], [4, 3]]]
    assert mirrored.labels[0].tolist() == [[[6, 5], [8, 7]], [[2, 1], [4, 3]]]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.lists(st.booleans(), min_size=9, max_size=9))
def test_mirroring_twice_changes_nothing(seed: int, flips: list[bool]) -> None:
    batch = batch_from(seed)
    drawn = Augmentation(**(neutral(3, 2) | {"mirrored": np.array(flips).reshape(3, 3)}))
    twice = apply_augmentation(apply_augmentation(batch, drawn), drawn)
    np.testing.assert_array_equal(twice.images, batch.images)
    np.testing.assert_array_equal(twice.labels, batch.labels)


def test_brightness_multiplies_each_channel() -> None:
    batch = Batch(np.ones((1, 2, 1, 1, 2), np.float32), np.zeros((1, 1, 1, 2), np.uint8))
    factors = np.array([[0.75, 1.25]], np.float32)
    brightened = apply_augmentation(
        batch, Augmentation(**(neutral(1, 2) | {"brightness": factors}))
    )
    assert brightened.images.ravel().tolist() == [0.75, 0.75, 1.25, 1.25]


def test_gamma_bends_intensities_and_keeps_mean_and_deviation() -> None:
    image = np.array([0, 1, 2], np.float32).reshape(1, 1, 1, 1, 3)
    batch = Batch(image, np.zeros((1, 1, 1, 3), np.uint8))
    exponent = np.array([[2.0]], np.float32)
    bent = apply_augmentation(batch, Augmentation(**(neutral(1, 1) | {"gamma": exponent}))).images
    # 0, 0.5, 2 after bending: mean 5/6, variance 13/18; brought back to mean 1, variance 2/3
    assert bent.ravel().tolist() == pytest.approx([0.1993592, 0.6797436, 2.1208972], abs=1e-5)


def test_gamma_leaves_a_constant_channel_finite() -> None:
    batch = Batch(np.full((1, 1, 2, 2, 2), 3, np.float32), np.zeros((1, 2, 2, 2), np.uint8))
    drawn = Augmentation(**(neutral(1, 1) | {"gamma": np.array([[1.3]], np.float32)}))
    assert apply_augmentation(batch, drawn).images.ravel().tolist() == [3] * 8


def test_noise_has_the_deviation_that_was_drawn() -> None:
    batch = Batch(np.zeros((2, 1, 40, 40, 40), np.float32), np.zeros((2, 40, 40, 40), np.uint8))
    drawn = Augmentation(**(neutral(2, 1) | {"noise_std": np.array([0.3, 0], np.float32)}))
    noisy = apply_augmentation(batch, drawn).images
    assert float(noisy[0].std()) == pytest.approx(0.3, abs=0.005)
    assert not noisy[1].any()


def test_parameters_follow_their_probabilities_and_ranges() -> None:
    n = 10_000
    drawn = draw_augmentation(n, 2, np.random.default_rng(0), mirror=True, intensity=True)
    np.testing.assert_allclose(drawn.mirrored.mean(axis=0), [0.5] * 3, atol=0.02)
    variance = drawn.noise_std[drawn.noise_std > 0] ** 2
    assert len(variance) / n == pytest.approx(0.1, abs=0.01)
    assert variance.mean() == pytest.approx(0.05, abs=0.005)
    assert variance.max() <= 0.1001
    for values, probability, low, high in (
        (drawn.brightness, 0.15, 0.75, 1.25),
        (drawn.gamma, 0.3, 0.7, 1.5),
    ):
        chosen = values[(values != 1).any(axis=1)]
        assert len(chosen) / n == pytest.approx(probability, abs=0.015)
        assert chosen.min() == pytest.approx(low, abs=0.01)
        assert chosen.max() == pytest.approx(high, abs=0.01)
        assert chosen.mean() == pytest.approx((low + high) / 2, abs=0.02)
        assert (chosen[:, 0] != chosen[:, 1]).all()


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("intensity", [True, False])
def test_only_what_was_asked_for_is_varied(mirror: bool, intensity: bool) -> None:
    drawn = draw_augmentation(100, 2, np.random.default_rng(0), mirror=mirror, intensity=intensity)
    assert drawn.mirrored.any() == mirror
    assert (drawn.noise_std > 0).any() == intensity
    assert (drawn.brightness != 1).any() == intensity
    assert (drawn.gamma != 1).any() == intensity


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_augmentation_is_repeatable_and_leaves_its_input_and_the_label_counts_alone(
    seed: int,
) -> None:
    batch, untouched = batch_from(seed), batch_from(seed)
    first, second = (
        augment(batch, np.random.default_rng(seed), mirror=True, intensity=True) for _ in range(2)
    )
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(batch.images, untouched.images)
    np.testing.assert_array_equal(batch.labels, untouched.labels)
    assert np.bincount(first.labels.ravel()).tolist() == np.bincount(batch.labels.ravel()).tolist()
    assert first.images.dtype == np.float32
