"""Lesion-wise Dice and HD95, as BraTS 2023 and later compute them.

A region is taken apart into lesions, and each counts alike, however small: a missed or a false
lesion costs a whole Dice of 0 and a HD95 of 374 mm. A lesion of the reference is matched by every
component of the prediction that touches it after dilation.

Source: the evaluation scripts of BraTS 2023, "lesion-wise performance metrics" (Saluja et al.),
    whose numbers these equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from common.axes import Mask, SpacingMm
from common.evaluation.lesion_rules import LesionRules
from common.evaluation.surface import label_box
from common.evaluation.surfels import hd95_weighted_mm, weighted_distances

Components: TypeAlias = NDArray[np.signedinteger]
"""Number of a component per voxel, axes (z, y, x); 0 is background."""

_TOUCHING = ndimage.generate_binary_structure(3, 3)  # 26 neighbours
_DILATION = ndimage.generate_binary_structure(3, 2)  # 18 neighbours


@dataclass(frozen=True)
class LesionScore:
    """How well the lesions of one region of one case were found. Leaves by site policy only."""

    dice: float
    """Mean over counted lesions and false ones; 1 when there are none of either."""
    hd95: float
    """Mean over the same, in mm; 0 when there are none."""
    n_found: int
    """Counted lesions of the reference that the prediction touches."""
    n_missed: int
    n_false: int
    """Components of the prediction that touch no lesion, not even one that is not counted."""


def score_lesions(
    reference: Mask, prediction: Mask, spacing_mm: SpacingMm, rules: LesionRules
) -> LesionScore:
    """Score one region lesion by lesion.

    Args:
        reference: the true region, axes (z, y, x); may be cropped as long as nothing is cut off.
        prediction: the predicted region, same shape.
        spacing_mm: voxel size along (z, y, x), above 0.
        rules: the challenge's.
    """
    box = label_box(reference, prediction)
    true, found = (np.pad(mask[box], rules.dilations) for mask in (reference, prediction))
    zones = _components(ndimage.binary_dilation(true, _DILATION, iterations=rules.dilations))
    components = _components(found)
    touching = _touching(zones, components)
    scores = [
        _score(true & (zones == zone), np.isin(components, touching.get(zone, [])), spacing_mm)
        for zone in _counted(zones, true, spacing_mm, rules)
    ]
    return _mean(scores, int(components.max(initial=0)) - _n_distinct(touching), rules)


def _components(mask: Mask) -> Components:
    numbered: Components = ndimage.label(mask, _TOUCHING)[0]
    return numbered


def _touching(zones: Components, components: Components) -> dict[int, list[int]]:
    """Return, for every zone that holds any, the components of the prediction in it."""
    both = (zones > 0) & (components > 0)
    touching: dict[int, list[int]] = {}
    for zone, component in np.unique(np.stack([zones[both], components[both]]), axis=1).T.tolist():
        touching.setdefault(zone, []).append(component)
    return touching


def _counted(zones: Components, true: Mask, spacing_mm: SpacingMm, rules: LesionRules) -> list[int]:
    """Return the zones whose lesion is large enough to be counted."""
    sizes_mm3 = np.bincount(zones[true]) * prod(spacing_mm)
    return [int(zone) for zone in np.flatnonzero(sizes_mm3 > rules.dropped_mm3)]


def _score(lesion: Mask, found: Mask, spacing_mm: SpacingMm) -> tuple[float, float] | None:
    """Return Dice and HD95 in mm of one lesion; None where it was missed."""
    if not found.any():
        return None
    box = label_box(lesion, found)
    true, predicted = lesion[box], found[box]
    hits = np.count_nonzero(true & predicted)
    return (
        float(2 * hits / (np.count_nonzero(true) + np.count_nonzero(predicted))),
        hd95_weighted_mm(weighted_distances(true, predicted, spacing_mm)),
    )


def _n_distinct(touching: Mapping[int, list[int]]) -> int:
    return len({component for components in touching.values() for component in components})


def _mean(
    scores: list[tuple[float, float] | None], n_false: int, rules: LesionRules
) -> LesionScore:
    found = [score for score in scores if score is not None]
    n_missed, n_all = len(scores) - len(found), len(scores) + n_false
    penalties_mm = (n_missed + n_false) * rules.penalty_hd95_mm
    return LesionScore(
        dice=sum(dice for dice, _ in found) / n_all if n_all else 1.0,
        hd95=(sum(hd95_mm for _, hd95_mm in found) + penalties_mm) / n_all if n_all else 0.0,
        n_found=len(found),
        n_missed=n_missed,
        n_false=n_false,
    )
