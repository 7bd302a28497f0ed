"""What can be done to a predicted label map after the network: small steps, as data.

Each step is a record that says what it does in words, and `post_processed` applies a chain of them.
Nothing is applied by itself: `postprocess_choice.py` keeps what helps on validation cases.

Sources:
    Scarce labels: BraTS 2020 winner (Isensee et al. 2020, section 3.2) and other BraTS papers.
    Largest component: nnU-Net v2, `remove_all_but_largest_component_from_segmentation`.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from annotated_types import Gt, MinLen
from numpy.typing import NDArray
from pydantic import Discriminator
from scipy import ndimage

from common.axes import LabelMap, Mask, SpacingMm
from common.codec import record
from common.evaluation.surface import label_box
from common.task import LabelValue, Task

Members = Annotated[tuple[LabelValue, ...], MinLen(1)]
"""Labels that are taken as one mask."""

TOUCHING = ndimage.generate_binary_structure(3, 3)  # 26 neighbours, as nnU-Net v2 takes them
# Below so many voxels of 1 mm3, enhancing tumour becomes necrosis: 200, 500, 600 and 750 stand in
# papers of BraTS 2018 to 2020, the others lie between and around them.
ENHANCING_BELOW_VOXELS = (50, 100, 200, 300, 400, 500, 600, 750, 1000)
ENHANCING_RULE = (129.5, 16954)  # Isensee et al. 2020: voxels of enhancing tumour, of necrosis
SMALL_MM3 = (10, 50, 100, 500)


@record
class ReplaceScarce:
    """A label of which a case holds little becomes another: probably it is not there at all."""

    kind: Literal["replace-scarce"] = "replace-scarce"
    label: LabelValue
    below_voxels: Annotated[float, Gt(0)]
    """Of the whole case; with fewer, all of them are replaced."""
    replacement: LabelValue
    beside: LabelValue | None = None
    """Only where the case holds more than `beside_above_voxels` of this label."""
    beside_above_voxels: float = 0


@record
class KeepLargest:
    """Of all components, only the largest stays; others become background."""

    kind: Literal["keep-largest"] = "keep-largest"
    labels: Members


@record
class RemoveSmall:
    """Components below a volume become background."""

    kind: Literal["remove-small"] = "remove-small"
    labels: Members
    below_mm3: Annotated[float, Gt(0)]


@record
class FillHoles:
    """Background that is enclosed on all sides becomes a label."""

    kind: Literal["fill-holes"] = "fill-holes"
    labels: Members
    """What encloses it."""
    filled_with: LabelValue


Step = Annotated[ReplaceScarce | KeepLargest | RemoveSmall | FillHoles, Discriminator("kind")]
Chain: TypeAlias = tuple[Step, ...]
"""Steps, one after the other. None of it is about a patient; it may leave the site."""


@record
class PostProcessing:
    """The file beside a model that says what is done to its labels."""

    steps: Chain


def post_processed(labels: LabelMap, chain: Sequence[Step], spacing_mm: SpacingMm) -> LabelMap:
    """Return the labels after all steps of a chain.

    Args:
        labels: axes (z, y, x); not changed.
        chain: applied in this order.
        spacing_mm: voxel size along (z, y, x), above 0.

    Returns:
        `labels` itself where no step changes anything.
    """
    box = label_box(labels)
    for step in chain:
        place, inside = _STEPS[step.kind](labels[box], step, spacing_mm)
        if inside.any():
            labels = labels.copy()
            labels[box][inside] = place
    return labels


def steps_for(task: Task) -> tuple[Step, ...]:
    """Return the steps that are worth trying on a task.

    Largest component, small components and holes for all foreground together and for every region;
    for tasks that name enhancing tumour and necrosis also what BraTS papers do with those.
    """
    together = dict.fromkeys([task.foreground_labels, *task.regions.values()])
    members = [tuple(label for label in labels if label > 0) for labels in together]
    steps: list[Step] = [KeepLargest(labels=labels) for labels in members]
    steps += [
        RemoveSmall(labels=labels, below_mm3=size) for labels in members for size in SMALL_MM3
    ]
    steps += [FillHoles(labels=labels, filled_with=_outermost(labels, task)) for labels in members]
    return (*_enhancing_steps(task), *steps)


def in_words(step: Step, task: Task) -> str:
    """Return what a step does, as a clause."""
    match step:
        case ReplaceScarce():
            text = (
                f"{_names([step.label], task)} of fewer than {step.below_voxels:g} voxels becomes "
                f"{_names([step.replacement], task)}"
            )
            if step.beside is None:
                return text
            beside = _names([step.beside], task)
            return f"{text} where {beside} has more than {step.beside_above_voxels:g} voxels"
        case KeepLargest():
            return f"only the largest component of {_names(step.labels, task)} stays"
        case RemoveSmall():
            return f"components of {_names(step.labels, task)} below {step.below_mm3:g} mm3 go"
        case FillHoles():
            holes = f"holes in {_names(step.labels, task)}"
            return f"{holes} become {_names([step.filled_with], task)}"


def _enhancing_steps(task: Task) -> list[Step]:
    if not {"enhancing", "necrosis"} <= task.labels.keys():
        return []
    enhancing, necrosis = task.labels["enhancing"], task.labels["necrosis"]
    thresholds: list[Step] = [
        ReplaceScarce(label=enhancing, below_voxels=voxels, replacement=necrosis)
        for voxels in ENHANCING_BELOW_VOXELS
    ]
    below, above = ENHANCING_RULE
    rule = ReplaceScarce(
        label=enhancing,
        below_voxels=below,
        replacement=necrosis,
        beside=necrosis,
        beside_above_voxels=above,
    )
    return [*thresholds, rule]


def _outermost(labels: Sequence[int], task: Task) -> int:
    """Return the label of a set that lies in the fewest regions: what its border is made of."""
    return min(labels, key=lambda label: sum(label in region for region in task.regions.values()))


def _names(labels: Sequence[int], task: Task) -> str:
    """Return the name of the region that the labels make up, or else of the labels."""
    if set(labels) == set(task.foreground_labels) and len(labels) > 1:
        return "all foreground"
    regions = {frozenset(members): name for name, members in task.regions.items()}
    if len(labels) > 1 and frozenset(labels) in regions:
        return regions[frozenset(labels)]
    named = {value: name for name, value in task.labels.items()}
    return " and ".join(named[label] for label in labels)


# Each returns a label, and where to put it.
_Change: TypeAlias = tuple[int, Mask]


def _replace_scarce(labels: LabelMap, step: ReplaceScarce, _: SpacingMm) -> _Change:
    inside = labels == step.label
    is_scarce = np.count_nonzero(inside) < step.below_voxels
    if step.beside is not None:
        is_scarce &= np.count_nonzero(labels == step.beside) > step.beside_above_voxels
    return step.replacement, inside if is_scarce else np.zeros_like(inside)


def _keep_largest(labels: LabelMap, step: KeepLargest, _: SpacingMm) -> _Change:
    numbered, sizes = _components(labels, step.labels)
    return 0, (numbered > 0) & (sizes[numbered] < sizes.max(initial=0))  # of equal ones, all stay


def _remove_small(labels: LabelMap, step: RemoveSmall, spacing_mm: SpacingMm) -> _Change:
    numbered, sizes = _components(labels, step.labels)
    return 0, (numbered > 0) & (sizes[numbered] * np.prod(spacing_mm) < step.below_mm3)


def _fill_holes(labels: LabelMap, step: FillHoles, _: SpacingMm) -> _Change:
    inside = np.isin(labels, step.labels)
    return step.filled_with, ndimage.binary_fill_holes(inside) & (labels == 0)


def _components(labels: LabelMap, members: Members) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the number of every voxel's component, and the size of each; background has none."""
    numbered, _ = ndimage.label(np.isin(labels, members), TOUCHING)
    sizes = np.bincount(numbered.ravel())
    sizes[:1] = 0
    return numbered, sizes


_STEPS: dict[str, Callable[[LabelMap, Any, SpacingMm], _Change]] = {
    "replace-scarce": _replace_scarce,
    "keep-largest": _keep_largest,
    "remove-small": _remove_small,
    "fill-holes": _fill_holes,
}
