"""Surface distances on drawn masks, and their laws against brute force."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import cKDTree

from common.axes import Mask, SpacingMm
from common.evaluation.surface import (
    SurfaceDistances,
    bounding_box,
    hd95_max_mm,
    hd95_pooled_mm,
    surface,
    surface_distances,
)

SHAPE = (3, 4, 5)
masks = arrays(np.bool_, SHAPE)
filled_masks = masks.filter(np.any)
spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 1.2, 3.0])] * 3)
FACES = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]


def box(shape: tuple[int, int, int], *slices: slice) -> Mask:
    mask = np.zeros(shape, np.bool_)
    mask[slices] = True
    return mask


def brute_surface(mask: Mask) -> list[tuple[int, ...]]:
    voxels = {tuple(voxel) for voxel in np.argwhere(mask).tolist()}
    return [
        (z, y, x)
        for z, y, x in sorted(voxels)
        if any((z + dz, y + dy, x + dx) not in voxels for dz, dy, dx in FACES)
    ]


def brute_directed_mm(origins: Mask, targets: Mask, spacing_mm: SpacingMm) -> list[float]:
    ends = brute_surface(targets)
    return sorted(
        min(
            math.dist(*(np.multiply(end, spacing_mm) for end in pair))
            for pair in product([a], ends)
        )
        for a in brute_surface(origins)
    )


def test_the_surface_of_a_solid_cube_is_its_shell() -> None:
    # 3 x 3 x 3 cube in 5 x 5 x 5: only the middle voxel has all six neighbours inside.
    cube = box((5, 5, 5), slice(1, 4), slice(1, 4), slice(1, 4))
    shell = surface(cube)
    assert shell.sum() == 26
    assert not shell[2, 2, 2]


def test_outside_of_the_image_is_background() -> None:
    # A mask that fills the whole image still has a surface: all but the middle voxel.
    assert surface(np.ones((3, 3, 3), np.bool_)).sum() == 26


def test_diagonal_neighbours_do_not_make_a_voxel_surface() -> None:
    # One slice of a 3 x 3 x 3 cube without its corner (z=0, y=0, x=0):
    #   . # #
    #   # # #   the centre voxel of the cube touches the hole only across a corner.
    #   # # #
    cube = box((3, 3, 3), slice(None), slice(None), slice(None))
    cube[0, 0, 0] = False
    assert not surface(cube)[1, 1, 1]


def test_an_empty_mask_has_no_surface_and_an_empty_box() -> None:
    nothing = np.zeros(SHAPE, np.bool_)
    assert not surface(nothing).any()
    assert nothing[bounding_box(nothing)].size == 0


def test_the_bounding_box_is_tight() -> None:
    mask = box(SHAPE, slice(1, 3), slice(0, 2), slice(4, 5))
    assert bounding_box(mask) == (slice(1, 3), slice(0, 2), slice(4, 5))


def test_single_voxels_are_as_far_apart_as_their_centres() -> None:
    # reference at (0, 0, 0), prediction 1, 2 and 2 voxels away; spacing 2 x 1 x 0.5 mm:
    # sqrt(2^2 + 2^2 + 1^2) = 3 mm
    reference = box(SHAPE, slice(0, 1), slice(0, 1), slice(0, 1))
    prediction = box(SHAPE, slice(1, 2), slice(2, 3), slice(2, 3))
    distances = surface_distances(reference, prediction, (2.0, 1.0, 0.5))
    assert distances.to_prediction_mm.tolist() == [3.0]
    assert distances.to_reference_mm.tolist() == [3.0]


def test_a_shifted_line_shares_its_middle() -> None:
    # the reference is ###.. and lies 2 1 0 from the prediction
    # the prediction is ..### and lies 0 1 2 from the reference
    reference = box((1, 1, 5), slice(None), slice(None), slice(0, 3))
    prediction = box((1, 1, 5), slice(None), slice(None), slice(2, 5))
    distances = surface_distances(reference, prediction, (1.0, 1.0, 1.0))
    assert sorted(distances.to_prediction_mm.tolist()) == [0.0, 1.0, 2.0]
    assert sorted(distances.to_reference_mm.tolist()) == [0.0, 1.0, 2.0]


def test_pooled_and_directed_percentiles_differ_and_interpolate_linearly() -> None:
    # pooled, sorted: 0 1 2 3 10; place 0.95 * 4 = 3.8: 3 + 0.8 * (10 - 3) = 8.6
    # directed: (0 10): place 0.95: 9.5;  (1 2 3): place 1.9: 2.9;  the larger is 9.5
    distances = SurfaceDistances(np.array([10.0, 0.0]), np.array([2.0, 1.0, 3.0]))
    assert hd95_pooled_mm(distances) == pytest.approx(8.6, abs=1e-12)
    assert hd95_max_mm(distances) == pytest.approx(9.5, abs=1e-12)


def test_an_empty_mask_is_infinitely_far_away() -> None:
    voxel = box(SHAPE, slice(0, 1), slice(0, 1), slice(0, 1))
    distances = surface_distances(voxel, np.zeros(SHAPE, np.bool_), (1.0, 1.0, 1.0))
    assert distances.to_prediction_mm.tolist() == [math.inf]
    assert distances.to_reference_mm.size == 0


@given(filled_masks, filled_masks, spacings)
def test_distances_equal_brute_force(
    reference: Mask, prediction: Mask, spacing_mm: SpacingMm
) -> None:
    found = surface_distances(reference, prediction, spacing_mm)
    there = brute_directed_mm(reference, prediction, spacing_mm)
    back = brute_directed_mm(prediction, reference, spacing_mm)
    assert np.sort(found.to_prediction_mm) == pytest.approx(there, abs=1e-12)
    assert np.sort(found.to_reference_mm) == pytest.approx(back, abs=1e-12)


@given(filled_masks, filled_masks, spacings)
def test_both_definitions_are_symmetric(
    reference: Mask, prediction: Mask, spacing_mm: SpacingMm
) -> None:
    there = surface_distances(reference, prediction, spacing_mm)
    back = surface_distances(prediction, reference, spacing_mm)
    for definition in (hd95_pooled_mm, hd95_max_mm):
        assert definition(there) == pytest.approx(definition(back), abs=1e-12)


@given(filled_masks, filled_masks, spacings, st.integers(0, 2))
def test_flipping_an_axis_changes_nothing(
    reference: Mask, prediction: Mask, spacing_mm: SpacingMm, axis: int
) -> None:
    there = surface_distances(reference, prediction, spacing_mm)
    flipped = surface_distances(np.flip(reference, axis), np.flip(prediction, axis), spacing_mm)
    for definition in (hd95_pooled_mm, hd95_max_mm):
        assert definition(there) == pytest.approx(definition(flipped), abs=1e-12)


@given(filled_masks, filled_masks)
def test_the_pooled_percentile_never_exceeds_the_maximum_of_the_directed(
    reference: Mask, prediction: Mask
) -> None:
    distances = surface_distances(reference, prediction, (1.0, 1.0, 1.0))
    largest = max(distances.to_prediction_mm.max(), distances.to_reference_mm.max())
    assert hd95_pooled_mm(distances) <= largest
    assert hd95_max_mm(distances) <= largest


def kd_tree_mm(origins: Mask, targets: Mask, spacing_mm: SpacingMm) -> list[float]:
    tree = cKDTree(np.argwhere(surface(targets)) * spacing_mm)
    return sorted(tree.query(np.argwhere(surface(origins)) * spacing_mm)[0])


@settings(max_examples=1000)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 150)),
    spacing_mm=st.tuples(*[st.floats(0.1, 8.0)] * 3),
    shares=st.tuples(st.floats(0.001, 0.7), st.floats(0.001, 0.7)),
)
def test_distances_equal_those_of_a_tree_on_any_grid(
    seed: int,
    shape: tuple[int, int, int],
    spacing_mm: SpacingMm,
    shares: tuple[float, float],
) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = (rng.random(shape) < share for share in shares)
    reference.flat[rng.integers(reference.size)] = True
    prediction.flat[rng.integers(prediction.size)] = True
    found = surface_distances(reference, prediction, spacing_mm)
    np.testing.assert_allclose(
        sorted(found.to_prediction_mm), kd_tree_mm(reference, prediction, spacing_mm), rtol=1e-12
    )
    np.testing.assert_allclose(
        sorted(found.to_reference_mm), kd_tree_mm(prediction, reference, spacing_mm), rtol=1e-12
    )


@pytest.mark.parametrize(
    "limits",
    [
        {"REACH_VOXELS": 0},  # all by search
        {"WORDS_PER_SEARCH": 0},
        {"WORDS_PER_SEARCH": 10**9},  # as many as possible by moves
        {"MOVED_BYTES": 2**16},
        {"MOVED_BYTES": 0},
    ],
)
def test_no_limit_of_the_search_changes_a_distance(
    limits: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    reference, prediction = (rng.random((9, 20, 70)) < share for share in (0.01, 0.002))
    expected = surface_distances(reference, prediction, (3.0, 1.0, 0.7))
    for name, value in limits.items():
        monkeypatch.setattr(f"common.evaluation.surface.{name}", value)
    found = surface_distances(reference, prediction, (3.0, 1.0, 0.7))
    for name in ("to_prediction_mm", "to_reference_mm"):
        np.testing.assert_allclose(
            sorted(getattr(found, name)), sorted(getattr(expected, name)), rtol=1e-12
        )
