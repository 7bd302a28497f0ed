"""Partial sharing: of its update a site sends the largest elements, and withholds the others.

A payload holds, per number type, the shared values in the order of `common.packing` and one bit per
element that says which they are: (1 - fraction) of the bytes, and 1/32 of them for the bits. Values
travel, not differences, so that what arrives is what the site trained, bit for bit.

Laws: nothing withheld is the update itself; a completed payload is the update where it was shared
and what was sent to the site elsewhere.

Source: reference 99 of "A review of federated learning in cancer", BrainLes 2021. Sizes are
compared over the whole model as in NVIDIA FLARE's percentile filter; what is withheld is not kept.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.axes import Mask, Weights
from common.errors import MessageError
from common.packing import Packed, pack, unpack

VALUES, PLACES = "values", "places"


def withhold(trained: Weights, received: Weights, fraction: float) -> Weights:
    """Return what a site sends of its weights.

    Args:
        trained: after the round.
        received: before it; the same tensors.
        fraction: share of the elements that is withheld, rounded down to whole ones, in [0, 1).

    Returns:
        The weights themselves if the fraction is 0, else a payload for `complete`: values and
        places by number type. Of elements that moved alike the first ones are shared.
    """
    if not fraction:
        return trained
    after, before = pack(trained), pack(received)
    payload: dict[str, NDArray[Any]] = {}
    for dtype, buffer in after.buffers.items():
        moved = _moved(buffer, before.buffers[dtype])
        shared = _largest(moved, _n_shared(buffer.size, fraction))
        payload[f"{dtype}.{VALUES}"] = buffer[shared]
        payload[f"{dtype}.{PLACES}"] = np.packbits(shared)
    return payload


def complete(payload: Weights, sent: Weights, fraction: float) -> Weights:
    """Return whole weights from what a site sent: withheld elements are as it received them.

    Args:
        payload: of `withhold` at the site; nothing about it is taken for granted.
        sent: what the site was to train from.
        fraction: that it was to withhold.

    Raises:
        MessageError: when it is not the share of these weights that was asked for. What the values
            are is not looked at here.
    """
    if not fraction:
        return payload
    before = pack(sent)
    expected = {f"{dtype}.{part}" for dtype in before.buffers for part in (VALUES, PLACES)}
    if set(payload) != expected:
        raise MessageError(f"weights: expected {sorted(expected)}, found {sorted(payload)[:9]}")
    for dtype, buffer in before.buffers.items():  # a copy of what was sent, made by `pack`
        n_shared = _n_shared(buffer.size, fraction)
        shared = _places(payload[f"{dtype}.{PLACES}"], buffer.size, n_shared)
        values = payload[f"{dtype}.{VALUES}"]
        if values.shape != (n_shared,) or values.dtype != buffer.dtype:
            raise MessageError(
                f"weights: expected {n_shared} shared values of {dtype}, "
                f"found {values.dtype} {values.shape}"
            )
        buffer[shared] = values
    return unpack(Packed(before.index, before.buffers))


def _moved(after: NDArray[Any], before: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.abs(after - before))


def _n_shared(size: int, fraction: float) -> int:
    return size - math.floor(fraction * size)


def _largest(moved: NDArray[Any], n: int) -> Mask:
    """Return where the n largest values stand; a NaN counts as the largest, to be seen."""
    if moved.size == 0:
        return np.zeros(0, np.bool_)
    moved = np.nan_to_num(moved, nan=np.inf, posinf=np.inf)
    least = np.partition(moved, moved.size - n)[moved.size - n]
    chosen = np.asarray(moved > least)
    chosen[np.flatnonzero(moved == least)[: n - np.count_nonzero(chosen)]] = True
    return chosen


def _places(packed: NDArray[np.generic], size: int, n_shared: int) -> Mask:
    """Unpack one bit per element.

    Raises:
        MessageError: for another number of bits, or of those that are set.
    """
    if packed.dtype != np.uint8 or packed.shape != (math.ceil(size / 8),):
        raise MessageError(
            f"weights: expected places of {size} elements, found {packed.dtype} {packed.shape}"
        )
    bits = np.unpackbits(packed.astype(np.uint8))
    if bits[size:].any() or np.count_nonzero(bits) != n_shared:
        raise MessageError(f"weights: expected {n_shared} of {size} places, found others")
    return bits[:size].astype(np.bool_)
