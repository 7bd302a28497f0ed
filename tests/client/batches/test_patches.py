"""Where patches lie, which of them are forced onto foreground, and that they are repeatable."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.batches.patches import Batch, Recipe, forced_onto_foreground, overlap, sample_batch
from client.caching.cache import CacheEntry, Meta
from client.preparation.preprocess import Geometry, foreground_index
from common.augmentation import PRESETS, Augmentation, Change, Preset, PresetName, preset_of


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


def recipe(
    patch_size: tuple[int, ...],
    batch_size: int,
    preset: PresetName = "none",
    fraction: float = 0.33,
) -> Recipe:
    return Recipe(patch_size, batch_size, PRESETS[preset], fraction)


def batch_of(entries: list[CacheEntry], wanted: Recipe, rng: np.random.Generator) -> Batch:
    images, labels = sample_batch(entries, wanted, rng)
    return Batch(images.numpy(), labels.numpy())


def plain_batch(
    entries: list[CacheEntry], patch_size: tuple[int, ...], n: int, rng: np.random.Generator
) -> Batch:
    """Return patches as they are, without augmentation."""
    return batch_of(entries, recipe(patch_size, n), rng)


def noise_entry(seed: int, shape: tuple[int, int, int], n_channels: int) -> CacheEntry:
    """Return an entry of noise, with labels 0 to 3 everywhere."""
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((n_channels, *shape), np.float32)
    entry = entry_of(rng.integers(0, 4, shape).astype(np.uint8))
    held = dict(vars(entry))
    entry = replace(entry, meta=replace(entry.meta, channels=n_channels))
    vars(entry).update(_image=image, _labels=held["_labels"], foreground=held["foreground"])
    return entry


@pytest.mark.parametrize(
    ("batch_size", "forced"),
    [(2, 1), (3, 1), (4, 1), (5, 2), (9, 3), (12, 4)],
)
def test_the_last_third_of_a_batch_is_forced(batch_size: int, forced: int) -> None:
    chosen = forced_onto_foreground(batch_size, 0.33, np.random.default_rng(0))
    assert chosen == [False] * (batch_size - forced) + [True] * forced


def test_a_batch_of_one_is_forced_one_time_in_three() -> None:
    rng = np.random.default_rng(0)
    share = np.mean([forced_onto_foreground(1, 1 / 3, rng) for _ in range(6000)])
    assert share == pytest.approx(1 / 3, abs=0.02)


def test_a_forced_patch_holds_the_foreground_in_its_middle() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[10, 11, 12] = 1
    batch = plain_batch([entry_of(labels)], (4, 6, 8), 2, np.random.default_rng(0))
    assert batch.labels[1, 2, 3, 4] == 1
    assert batch.images[1, 0, 2, 3, 4] == 10 * 400 + 11 * 20 + 12 + 1


def test_a_forced_patch_at_the_border_is_moved_inside() -> None:
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[0, 7, 4] = 3
    batch = plain_batch([entry_of(labels)], (4, 4, 4), 2, np.random.default_rng(0))
    assert batch.labels[1, 0, 3, 2] == 3
    assert (batch.images[1] > 0).all()  # no padding


def test_classes_of_a_case_are_drawn_equally_often_however_small() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:4] = 1
    labels[8, 8, 8] = 2
    rng = np.random.default_rng(0)
    batches = [plain_batch([entry_of(labels)], (1, 1, 1), 2, rng) for _ in range(1000)]
    drawn = [int(batch.labels[1, 0, 0, 0]) for batch in batches]
    assert drawn.count(1) + drawn.count(2) == 1000
    assert drawn.count(2) == pytest.approx(500, abs=60)


def test_free_patches_lie_anywhere_inside() -> None:
    entry = entry_of(np.zeros((4, 3, 2), np.uint8))
    rng = np.random.default_rng(0)
    firsts = {
        float(image[0, 0, 0, 0])
        for _ in range(300)
        for image in plain_batch([entry], (3, 2, 2), 2, rng).images
    }
    assert firsts == {1, 3, 7, 9}  # starts (0 or 1, 0 or 1, 0), also where no foreground exists


def test_every_case_is_drawn() -> None:
    entries = [entry_of(np.zeros((2, 2, 2), np.uint8), offset) for offset in (1, 101, 201)]
    rng = np.random.default_rng(0)
    firsts = [
        float(x)
        for _ in range(100)
        for x in plain_batch(entries, (2, 2, 2), 3, rng).images[:, 0, 0, 0, 0]
    ]
    assert set(firsts) == {1, 101, 201}
    assert firsts.count(1) == pytest.approx(100, abs=30)


def test_a_small_case_lies_in_the_middle_of_the_patch_with_zeros_around() -> None:
    labels = np.array([[[1, 2]]], np.uint8)
    batch = plain_batch([entry_of(labels)], (1, 2, 5), 2, np.random.default_rng(0))
    for sample in range(2):
        assert batch.images[sample, 0].tolist() == [[[0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]]
        assert batch.labels[sample].tolist() == [[[0, 1, 2, 0, 0], [0, 0, 0, 0, 0]]]


def test_overlap_of_a_patch_that_sticks_out_on_both_sides() -> None:
    source, target = overlap((3, 10, 10), (-1, 2, 6), (6, 4, 4))
    assert source == (slice(0, 3), slice(2, 6), slice(6, 10))
    assert target == (slice(1, 4), slice(0, 4), slice(0, 4))


@pytest.mark.parametrize(("fraction", "forced"), [(0.0, 0), (0.01, 1), (0.5, 2), (1.0, 4)])
def test_the_share_of_forced_patches_can_be_chosen(fraction: float, forced: int) -> None:
    assert sum(forced_onto_foreground(4, fraction, np.random.default_rng(0))) == forced


def test_a_slice_shows_one_position_of_the_first_axis() -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[3, 2, 4] = 2
    batch = plain_batch([entry_of(labels)], (3, 5), 2, np.random.default_rng(0))
    assert (batch.images.shape, batch.labels.shape) == ((2, 1, 3, 5), (2, 3, 5))
    assert batch.labels[1].tolist() == [[0, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]]
    # rows 1 to 3 and columns 2 to 6 of the slice 3: 3 * 42 + 1 * 7 + 2 + 1 is the first
    assert batch.images[1, 0, :, 0].tolist() == [136, 143, 150]


def test_every_slice_is_drawn() -> None:
    entry = entry_of(np.zeros((4, 2, 2), np.uint8))
    rng = np.random.default_rng(0)
    batches = [plain_batch([entry], (2, 2), 2, rng) for _ in range(60)]
    assert {float(x) for batch in batches for x in batch.images[:, 0, 0, 0]} == {1, 5, 9, 13}


def test_the_first_stage_labels_become_channels_that_move_with_the_patch() -> None:
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:5, 1:3] = 2
    labels[4:, :2] = 1
    entry = entry_of(labels)
    vars(entry).update(_previous_labels=labels)
    for seed in range(20):
        wanted = replace(recipe((4, 4, 4), 3, "ibsr18"), cascade_labels=(2, 1))
        batch = batch_of([entry], wanted, np.random.default_rng(seed))
        assert batch.images.shape == (3, 3, 4, 4, 4)
        np.testing.assert_array_equal(batch.images[:, 1], batch.labels == 2)
        np.testing.assert_array_equal(batch.images[:, 2], batch.labels == 1)


# Augmented batches


def test_the_preset_light_draws_what_mirror_and_intensity_drew_before_there_were_presets() -> None:
    # literals from the code at commit ca44ff1, mirror and intensity on, from the same generator
    entry = noise_entry(5, (9, 8, 7), 2)
    batch = batch_of([entry], recipe((6, 8, 9), 2, "light"), np.random.default_rng(28))
    first = [-0.059333, -0.059333, 1.770143, 0.014742, 1.615344, -0.082687, 0.057827, 1.162397]
    then = [-0.994722, 0.003962, -0.280879, -0.352263, -0.53721, 1.749801, 0.208891, 0.504337]
    assert batch.images.ravel()[: 16 * 89 : 89].tolist() == pytest.approx([*first, *then], abs=1e-5)
    assert float(np.abs(batch.images).sum()) == pytest.approx(1128.2412, abs=0.01)
    assert batch.labels.ravel()[::29].tolist() == (
        [0, 0, 3, 2, 0, 0, 0, 3, 2, 0, 3, 3, 2, 0, 3, 0, 1, 3, 0, 1, 1, 2, 0, 0, 2, 0, 2, 0, 1, 3]
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from(sorted(PRESETS)))
def test_the_same_generator_gives_the_same_batch(
    seed: int, batch_size: int, preset: PresetName
) -> None:
    entries = [noise_entry(1, (7, 6, 5), 2), noise_entry(2, (3, 9, 8), 2)]
    first, second = (
        batch_of(entries, recipe((4, 5, 4), batch_size, preset), np.random.default_rng(seed))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.images.shape == (batch_size, 2, 4, 5, 4)
    assert (first.images.dtype, first.labels.dtype) == (np.float32, np.uint8)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(PRESETS)),
    st.sampled_from([(6, 6, 6), (9, 4, 5), (5, 7)]),
    st.booleans(),
)
def test_augmentation_makes_no_label_and_spoils_no_intensity(
    seed: int, preset: PresetName, patch_size: tuple[int, ...], in_plane: bool
) -> None:
    labels = np.zeros((8, 7, 9), np.uint8)
    labels[2:6, 1:6, 2:8] = 1  # 1 holds 5 holds 9, nested, with gaps between the values
    labels[3:5, 2:5, 3:7] = 5
    labels[4, 3, 4:6] = 9
    entry = entry_of(labels)
    before = vars(entry)["_image"].copy()
    wanted = replace(recipe(patch_size, 2, preset), in_plane=in_plane and len(patch_size) == 3)
    batch = batch_of([entry], wanted, np.random.default_rng(seed))
    assert set(np.unique(batch.labels)) <= {0, 1, 5, 9}
    assert np.isfinite(batch.images).all()
    np.testing.assert_array_equal(vars(entry)["_image"], before)  # a case in memory is not changed


def test_a_patch_that_looks_far_reads_what_it_sees() -> None:
    # scaled by 2, the middle of 4 voxels looks at positions 1.5 - 3, - 1, + 1 and + 3 from the
    # patch's first voxel: of a ramp it sees halves; the case goes on beyond the patch
    ramp = np.zeros((1, 1, 24), np.uint8)
    entry = entry_of(ramp)  # its image is 1, 2, 3 ... along the last axis
    doubled = Preset(scaling=Change(1.0, 2, 2))
    wanted = Recipe((1, 1, 4), 1, doubled, 0.0)
    for seed in range(30):
        seen = batch_of([entry], wanted, np.random.default_rng(seed)).images.ravel()
        if seen.min() > 0 and seen.max() < 24:
            np.testing.assert_allclose(np.diff(seen), 2, atol=1e-4)
            return
    pytest.fail("expected a patch inside the case")


def test_without_mirroring_a_preset_keeps_its_other_changes() -> None:
    chosen = preset_of(Augmentation(preset="nnunet", mirror=False, channel_dropout=0.2))
    assert (chosen.mirror, chosen.channel_dropout) == (0, 0.2)
    assert replace(chosen, mirror=0.5, channel_dropout=0) == PRESETS["nnunet"]
