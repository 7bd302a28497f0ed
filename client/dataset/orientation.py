"""Cases that lie unlike the others: a header that is wrong gives a patient a tumour on the left.

Every case is brought into RAS+ by its header. Where the header is right, heads then lie alike;
a case that fits the others far better when it is flipped or turned has a wrong one.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations, product
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.axes import Image

SIZE: Final = 16  # samples per axis: coarse enough to compare different heads, and fields of view
MIN_CASES: Final = 5  # fewer do not say what is usual
RARE_FRACTION: Final = 0.1  # of the cases, at least one: an order of the axes that stands out
MIN_CORRELATION: Final = 0.5  # a case that does not fit in any way says nothing
MIN_GAIN: Final = 0.1
# Of the correlation. 188 Hippocampus and 4 BraTS 2013 cases stay below 0.01 as they are. Every
# Hippocampus case that is flipped is found, and every brain that is upside down; a whole brain is
# so symmetrical that its left and right cannot be told apart.
FLIPS: Final = ("upside down", "front to back", "left to right")  # along z, y, x

Signature: TypeAlias = NDArray[np.float32]
"""A case's first channel, sampled coarsely and standardised, axes (z, y, x)."""


def signature(image: Image) -> Signature:
    """Return what is compared between cases; zero for an image without contrast."""
    picks = [np.linspace(0, size - 1, 2 * SIZE).round().astype(int) for size in image.shape[1:]]
    sampled = np.nan_to_num(image[0][np.ix_(*picks)], posinf=0.0, neginf=0.0).astype(np.float64)
    pooled = sampled.reshape(SIZE, 2, SIZE, 2, SIZE, 2).mean(axis=(1, 3, 5))
    centred = pooled - pooled.mean()
    length = float(np.linalg.norm(centred))
    found: Signature = (centred / length if length else np.zeros_like(centred)).astype(np.float32)
    return found


def turned(signatures: Sequence[Signature]) -> dict[int, str]:
    """Return in words how a case seems to be turned, by its position; empty for few cases."""
    if len(signatures) < MIN_CASES:
        return {}
    total = np.sum(signatures, axis=0, dtype=np.float64)
    found = {}
    for place, own in enumerate(signatures):
        others = total - own
        length = float(np.linalg.norm(others)) or 1.0  # without any contrast nothing fits
        if words := _turn(own, others / length):
            found[place] = words
    return found


def rare_orders(codes: Sequence[str]) -> dict[int, str]:
    """Return the usual order of the axes, by the position of each case that has a rare one."""
    if len(codes) < MIN_CASES:
        return {}
    (usual, _), *_ = Counter(codes).most_common()
    rare = [place for place, code in enumerate(codes) if code != usual]
    if len(rare) > max(1, RARE_FRACTION * len(codes)):
        return {}
    return dict.fromkeys(rare, usual)


def _turn(own: Signature, others: NDArray[np.float64]) -> str | None:
    """Return how `own` must be turned to fit the others, or None where it fits as it is."""
    scores = {
        (axes, flips): float(np.vdot(_turned(own, axes, flips), others))
        for axes in permutations(range(3))
        for flips in product((False, True), repeat=3)
    }
    as_stored = scores[(0, 1, 2), (False, False, False)]
    axes, flips = max(scores, key=lambda turn: scores[turn])
    best = scores[axes, flips]
    if best < MIN_CORRELATION or best - as_stored < MIN_GAIN:
        return None
    names = [name for name, flipped in zip(FLIPS, flips, strict=True) if flipped]
    words = [*(["with its axes exchanged"] if axes != (0, 1, 2) else []), *names]
    return f"{' and '.join(words)} (correlation {best:.2f} instead of {as_stored:.2f})"


def _turned(volume: Signature, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Signature:
    steps = tuple(slice(None, None, -1 if flipped else 1) for flipped in flips)
    return volume.transpose(axes)[steps]
