"""The first stage's labels as channels of the second stage, made as imperfect as they may come.

Source: nnU-Net (arXiv 1904.08128v2), supplement D, "cascade"; nnunetv2 2.8.1 for the chance of each
label. What an operator adds to one label is taken from the others, so no voxel has two.
"""

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from client.batches.augmentation import OPERATORS, CascadeDrawn
from common.axes import LabelMap, Mask


def cascade_channels(
    previous: Tensor, values: tuple[int, ...], drawn: CascadeDrawn | None, sample: int
) -> Tensor:
    """Return one channel of 0 and 1 per label value, axes (value, patch), float32.

    Args:
        previous: the first stage's labels in the patch, uint8.
        values: which labels, in the order of the channels.
        drawn: what happens to them; None for nothing.
        sample: index into the batch.
    """
    labels: LabelMap = previous.cpu().numpy()
    masks = np.stack([labels == value for value in values])
    if drawn is not None:
        for channel in drawn.order[sample].tolist():
            _operate(masks, channel, drawn, sample)
        for channel in drawn.order[sample].tolist():
            _remove_component(masks[channel], drawn, (sample, channel))
    return torch.from_numpy(masks.astype(np.float32)).to(previous.device)


def operate(mask: Mask, operator: str, radius: float) -> Mask:
    """Return a mask changed by a ball; nothing is known outside, so borders do not erode.

    Args:
        mask: any shape.
        operator: one of `OPERATORS`.
        radius: of the ball, in voxels; voxels at this distance belong to it.
    """
    if operator == "dilate":
        return _dilated(mask, radius)
    if operator == "erode":
        return ~_dilated(~mask, radius)
    if operator == "close":
        return ~_dilated(~_dilated(mask, radius), radius)
    if operator == "open":
        return _dilated(~_dilated(~mask, radius), radius)
    return mask


def _operate(masks: NDArray[np.bool_], channel: int, drawn: CascadeDrawn, sample: int) -> None:
    at = (sample, channel)
    if drawn.operator[at] == 0 or not masks[channel].any():
        return
    before = masks[channel].copy()
    after = operate(before, OPERATORS[drawn.operator[at]], float(drawn.radius[at]))
    masks &= ~(after & ~before)
    masks[channel] = after


def _dilated(mask: Mask, radius: float) -> Mask:
    """Return the voxels within a distance of the mask, from distances near the mask only."""
    grown = np.zeros_like(mask)
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return grown
    around = tuple(
        slice(max(0, side.start - ceil(radius)), side.stop + ceil(radius)) for side in boxes[0]
    )
    distances = ndimage.distance_transform_edt(~mask[around])
    grown[around] = np.asarray(distances) <= radius
    return grown


def _remove_component(mask: Mask, drawn: CascadeDrawn, at: tuple[int, int]) -> None:
    """Remove one component that is small against the patch, in place."""
    if np.isnan(drawn.removed[at]):
        return
    neighbours = np.ones((3,) * mask.ndim)
    components, _ = ndimage.label(mask, structure=neighbours)
    sizes = np.bincount(components.ravel())[1:]
    small = np.flatnonzero(sizes < drawn.max_fraction * mask.size)
    if len(small):
        mask[components == small[int(drawn.removed[at] * len(small))] + 1] = False
