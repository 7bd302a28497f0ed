"""From a prepared image to labels on the image's own grid: predict, restore, decide.

Everything after the network runs slab by slab along z, so that no array of all outputs on the
whole grid is held; only the mean over several models is, in memory or on disk (`Workspace`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.device import Device
from client.prediction.predict import Averaging, Window, activated, decide, predicted_slabs
from client.prediction.uncertainty import normalised_entropy
from client.prediction.way_back import restored_slabs
from client.prediction.workspace import Workspace
from client.preparation.preprocess import Geometry
from client.preparation.resample import resample_labels
from client.site import Agreement
from common.axes import Image, LabelMap, Probabilities, Shape, SpacingMm
from common.config import Output
from common.planning.plan import Plan
from common.task import Task

Slabs: TypeAlias = Iterator[Probabilities]
"""Consecutive slabs of the cropped image, axes (output, z, y, x)."""
CaseProgress = Callable[[int, int], None]
SLAB_BYTES = 2**23  # of the mean over models that is decided on together


@dataclass(frozen=True)
class Predictor:
    """A network that can predict, with the agreement that it was trained by."""

    network: nn.Module
    """With its own batch-norm statistics in place."""
    agreement: Agreement
    device: Device
    mirroring: bool
    first: "Predictor | None" = None
    """The first stage, of a cascade."""

    @property
    def output(self) -> Output:
        """What the network's outputs are probabilities of."""
        return self.agreement.terms.config.model.output


@dataclass(frozen=True)
class Wanted:
    """What is made besides labels."""

    uncertainty: bool = False
    probabilities: bool = False


LABELS_ONLY = Wanted()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What was predicted for a case, on the whole RAS+ image, axes (z, y, x). Stays at the site."""

    labels: LabelMap
    uncertainty: NDArray[np.float32] | None
    """Normalised entropy; 0 outside the crop."""
    probabilities: dict[str, NDArray[np.uint8]]
    """By region, or by label above background: in 255ths; 0 outside the crop; maybe none."""


def segment(
    image: Image,
    geometry: Geometry,
    network: nn.Module,
    agreement: Agreement,
    device: Device,
    *,
    previous: LabelMap | None = None,
) -> LabelMap:
    """Return the predicted labels of a prepared image.

    Args:
        image: prepared intensities (channel, network axes).
        geometry: how it lies in the file's RAS+ image.
        network: with its own batch-norm statistics in place.
        agreement: plan and settings of the run.
        device: where to compute.
        previous: labels of the first stage of a cascade, axes (z, y, x) of the RAS+ image.

    Returns:
        Label values, axes (z, y, x), of the whole RAS+ image.
    """
    mirroring = agreement.terms.config.evaluation.mirroring
    model, space = Predictor(network, agreement, device, mirroring), Workspace()
    slabs = probability_slabs(model, image, geometry, space, previous=previous)
    return decided(slabs, geometry, agreement.terms.task, model.output, LABELS_ONLY, space).labels


def probability_slabs(
    model: Predictor,
    image: Image,
    geometry: Geometry,
    space: Workspace,
    *,
    previous: LabelMap | None = None,
    progress: CaseProgress | None = None,
) -> Slabs:
    """Yield a model's probabilities on the grid of the cropped image, slab by slab.

    Args:
        model: the network and how it was trained.
        image: prepared intensities (channel, network axes).
        geometry: how it lies in the file's RAS+ image.
        space: memory for the mean over tiles.
        previous: labels of the first stage of a cascade, axes (z, y, x) of the RAS+ image.
        progress: told tiles done and all tiles.
    """
    agreement = model.agreement
    if previous is not None:
        image = with_previous(image, on_network_grid(previous, geometry), agreement.terms.task)
    averaging = averaging_of(agreement.plan)
    scores = predicted_slabs(
        model.network,
        image,
        Window(agreement.configuration.patch_size, model.output, model.mirroring, averaging),
        model.device,
        transpose=geometry.transpose,
        progress=progress,
        allocate=space.zeros,
    )
    for slab in restored_slabs(scores, geometry):
        yield slab if averaging == "probabilities" else activated(slab, model.output)
        space.settle()


def mean_of_models(members: Sequence[Callable[[], Slabs]], shape: Shape, space: Workspace) -> Slabs:
    """Yield the mean of the models' probabilities; one model after the other is run.

    Args:
        members: start a model's prediction each; all of one cropped image.
        shape: of that crop, along (z, y, x).
        space: memory for the sum.
    """
    if len(members) == 1:
        yield from members[0]()
        return
    total: NDArray[np.float32] | None = None  # axes (z, output, y, x): a slab lies together
    for member in members:
        start = 0
        for slab in member():
            if total is None:
                total = space.zeros((shape[0], len(slab), *shape[1:]), np.float32)
            total[start : start + slab.shape[1]] += slab.swapaxes(0, 1)
            start += slab.shape[1]
            space.settle()
    if total is None:
        raise ValueError("members: expected at least one model")
    step = max(1, SLAB_BYTES // total[0].nbytes)
    for first in range(0, shape[0], step):
        mean = total[first : first + step] / np.float32(len(members))
        yield np.ascontiguousarray(mean.swapaxes(0, 1))
        space.settle()


def decided(
    slabs: Slabs, geometry: Geometry, task: Task, output: Output, wanted: Wanted, space: Workspace
) -> Segmentation:
    """Decide between the labels, slab by slab, and put them into the full image.

    Args:
        slabs: probabilities on the grid of the crop.
        geometry: where the crop lies in the image.
        task: its labels and regions.
        output: what the probabilities are of.
        wanted: what to make besides labels.
        space: memory for maps of probabilities.
    """
    names = _names(task, output) if wanted.probabilities else {}
    found = Segmentation(
        labels=np.zeros(geometry.full_shape, np.uint8),
        uncertainty=np.zeros(geometry.full_shape, np.float32) if wanted.uncertainty else None,
        probabilities={name: space.zeros(geometry.full_shape, np.uint8) for name in names},
    )
    depth, height, width = geometry.slices
    start = depth.start
    for slab in slabs:
        place = (slice(start, start + slab.shape[1]), height, width)
        start += slab.shape[1]
        found.labels[place] = decide(slab, task, output)
        if found.uncertainty is not None:
            found.uncertainty[place] = normalised_entropy(slab, output)
        for name, index in names.items():
            found.probabilities[name][place] = np.rint(slab[index] * 255)
        space.settle()
    return found


def on_network_grid(labels: LabelMap, geometry: Geometry) -> LabelMap:
    """Bring labels, axes (z, y, x) of the RAS+ image, to the grid of the prepared case."""
    reordered = np.ascontiguousarray(labels[geometry.slices].transpose(geometry.transpose))
    a, b, c = (geometry.spacing_mm[axis] for axis in geometry.transpose)
    spacing_mm: SpacingMm = (a, b, c)
    network_mm = geometry.network_spacing_mm
    return resample_labels(reordered, spacing_mm, network_mm, geometry.resampling)


def with_previous(image: Image, labels: LabelMap, task: Task) -> Image:
    """Append the labels of a cascade's first stage, one channel of 0 and 1 per label.

    Args:
        image: prepared intensities (channel, a, b, c).
        labels: of the first stage on the same grid.
        task: its labels above background, ascending, are the channels.
    """
    masks = [labels == value for value in task.foreground_labels]
    return np.concatenate((image, np.stack(masks).astype(np.float32)))


def averaging_of(plan: Plan) -> Averaging:
    """Return what is averaged over tiles and mirrorings: as the plan's rules do it."""
    return "probabilities" if plan.rules == "paper" else "logits"


def _names(task: Task, output: Output) -> dict[str, int]:
    """Return which output belongs to which region, or to which label above background."""
    if output == "regions":
        return {region: index for index, region in enumerate(task.regions)}
    by_value = {value: name for name, value in task.labels.items()}
    return {by_value[value]: 1 + i for i, value in enumerate(task.foreground_labels)}
