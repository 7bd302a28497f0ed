"""Surfaces by area: values of google-deepmind/surface-distance, closed forms, and laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from common.axes import Mask, SpacingMm
from common.evaluation.surfels import hd95_weighted_mm, surface_dice, weighted_distances

UNIT = (1.0, 1.0, 1.0)
THICK = (3.0, 1.2, 0.5)
masks = arrays(np.bool_, (3, 4, 5))
filled_masks = masks.filter(np.any)
spacings = st.tuples(*[st.sampled_from([0.5, 1.0, 1.2, 3.0])] * 3)
tolerances = st.sampled_from([0.0, 0.5, 1.0, 1.2, 2.0, 3.0])


def drawn() -> tuple[Mask, Mask]:
    """Return a 2 x 3 x 4 box, and a 3 x 3 x 5 box moved by a voxel that lacks a corner."""
    reference = np.zeros((4, 6, 7), np.bool_)
    reference[1:3, 1:4, 1:5] = True
    prediction = np.zeros_like(reference)
    prediction[1:4, 2:5, 1:6] = True
    prediction[1, 2, 1] = False
    return reference, prediction


# surface-distance 0.1 on the masks above
@pytest.mark.parametrize(
    ("spacing_mm", "areas_mm2", "hd95_mm"),
    [
        (UNIT, (40.702613556046, 63.336223673332), 1.414213562373),
        (THICK, (66.637810656948, 107.955131958153), 3.041381265149),
    ],
)
def test_areas_and_hd95_are_those_of_surface_distance(
    spacing_mm: SpacingMm, areas_mm2: tuple[float, float], hd95_mm: float
) -> None:
    found = weighted_distances(*drawn(), spacing_mm)
    assert found.reference_mm2.sum() == pytest.approx(areas_mm2[0], abs=1e-9)
    assert found.prediction_mm2.sum() == pytest.approx(areas_mm2[1], abs=1e-9)
    assert hd95_weighted_mm(found) == pytest.approx(hd95_mm, abs=1e-12)


@pytest.mark.parametrize(
    ("spacing_mm", "tolerance_mm", "expected"),
    [
        (UNIT, 0.0, 0.396050927004),
        (UNIT, 0.5, 0.396050927004),
        (UNIT, 1.0, 0.935222401714),
        (UNIT, 2.0, 1.0),
        (THICK, 0.0, 0.390847845938),
        (THICK, 0.5, 0.615750995618),
        (THICK, 1.0, 0.657651597856),
        (THICK, 1.2, 0.854398892803),
        (THICK, 2.0, 0.88238668492),
        (THICK, 3.0, 0.952114542825),
    ],
)
def test_surface_dice_is_that_of_surface_distance(
    spacing_mm: SpacingMm, tolerance_mm: float, expected: float
) -> None:
    found = weighted_distances(*drawn(), spacing_mm)
    assert surface_dice(found, tolerance_mm) == pytest.approx(expected, abs=1e-11)


def test_a_slanted_surface_is_measured_and_not_counted() -> None:
    half = np.indices((6, 6, 6)).sum(axis=0) < 8  # a cube cut along its space diagonal
    found = weighted_distances(half, half[::-1].copy(), UNIT)
    assert found.reference_mm2.sum() == pytest.approx(134.223280300181, abs=1e-9)
    assert hd95_weighted_mm(found) == pytest.approx(math.sqrt(5), abs=1e-12)
    assert surface_dice(found, 1.0) == pytest.approx(0.771785559248, abs=1e-11)


def test_a_single_voxel_is_an_octahedron() -> None:
    # Eight corners, each an eighth of sqrt(6^2 + 3^2 + 2^2) = 7 mm2, faces 6, 3 and 2 mm2.
    one = np.ones((1, 1, 1), np.bool_)
    assert weighted_distances(one, one, (1.0, 2.0, 3.0)).reference_mm2.sum() == 7.0


def test_nothing_is_infinitely_far_and_agrees_nowhere() -> None:
    reference, _ = drawn()
    found = weighted_distances(reference, np.zeros_like(reference), UNIT)
    assert hd95_weighted_mm(found) == math.inf
    assert surface_dice(found, 5.0) == 0.0


@given(filled_masks, filled_masks, spacings)
def test_distances_are_those_of_a_distance_transform_of_the_corners(
    a: Mask, b: Mask, spacing_mm: SpacingMm
) -> None:
    def corners(mask: Mask) -> Mask:
        around = np.pad(mask, 1)
        eight = np.lib.stride_tricks.sliding_window_view(around, (2, 2, 2))
        return eight.any(axis=(3, 4, 5)) & ~eight.all(axis=(3, 4, 5))

    to_b = ndimage.distance_transform_edt(~corners(b), sampling=spacing_mm)[corners(a)]
    found = weighted_distances(a, b, spacing_mm)
    np.testing.assert_allclose(found.to_prediction_mm, to_b, rtol=0, atol=1e-12)


@given(filled_masks, spacings, tolerances)
def test_a_region_agrees_with_itself(mask: Mask, spacing_mm: SpacingMm, mm: float) -> None:
    found = weighted_distances(mask, mask.copy(), spacing_mm)
    assert surface_dice(found, mm) == pytest.approx(1.0, abs=1e-12)
    assert hd95_weighted_mm(found) == 0.0


@given(filled_masks, filled_masks, spacings, tolerances)
def test_surface_dice_does_not_mind_which_mask_is_the_reference_nor_how_it_lies(
    a: Mask, b: Mask, spacing_mm: SpacingMm, mm: float
) -> None:
    value = surface_dice(weighted_distances(a, b, spacing_mm), mm)
    back = surface_dice(weighted_distances(b, a, spacing_mm), mm)
    turned = weighted_distances(a.T[::-1], b.T[::-1], spacing_mm[::-1])
    assert 0 <= value <= 1 + 1e-12
    assert back == pytest.approx(value, abs=1e-12)
    assert surface_dice(turned, mm) == pytest.approx(value, abs=1e-12)


@given(filled_masks, filled_masks, spacings)
def test_more_tolerance_never_agrees_less(a: Mask, b: Mask, spacing_mm: SpacingMm) -> None:
    found = weighted_distances(a, b, spacing_mm)
    values = [surface_dice(found, mm) for mm in (0.0, 0.7, 1.0, 2.5, 20.0)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1.0, abs=1e-12)
