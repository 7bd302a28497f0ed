"""What a site learned, in fewer bytes: the change of the weights with fewer digits.

float16 holds a tensor's change in units of a power of two at its largest, bfloat16 as it is, int8
in 127 steps up to its largest. What rounding took away is kept at the site and added to the next
round's change, so that nothing is lost for ever. Tensors of one axis (biases, scales and shifts of
norms, their statistics) are few bytes and are sent whole.

Source of the error feedback: Seide et al. 2014, 1-bit stochastic gradient descent, section 2.1;
Karimireddy et al. 2019, Error feedback fixes SignSGD, shows that it converges as without rounding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from common.federation import Upload

SENT_AS = {"float16": "float16", "bfloat16": "uint16", "int8": "int8"}
"""Number type of a rounded tensor; numpy has no bfloat16, its upper 16 bits travel."""
INT8_STEPS = 127
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Rounded:
    """Changes ready to be sent, and what is left of them."""

    payload: Weights
    """By tensor: the rounded change, or, for tensors of one axis, the whole weights."""
    scales: dict[str, float]
    """What a rounded change has to be multiplied by."""
    residual: Weights
    """What the payload does not say; stays at the site."""


def is_rounded(shape: tuple[int, ...]) -> bool:
    """Return whether the change of a tensor of this shape is rounded."""
    return len(shape) > 1


def rounded(sent: Weights, trained: Weights, residual: Weights, upload: Upload) -> Rounded:
    """Round the change from `sent` to `trained`.

    Args:
        sent: weights that the site received, float32.
        trained: after its round; the same tensors.
        residual: of the site's round before; empty in the first one.
        upload: number type, not float32.
    """
    payload: dict[str, NDArray[np.generic]] = {}
    scales: dict[str, float] = {}
    left: dict[str, Float32] = {}
    for name, tensor in trained.items():
        if not is_rounded(tensor.shape):
            payload[name] = tensor
            continue
        change = (tensor - sent[name] + residual.get(name, np.float32(0))).astype(np.float32)
        scales[name] = _scale(change, upload)
        payload[name] = _digits(change, scales[name], upload)
        left[name] = change - change_of(payload[name], scales[name], upload)
    return Rounded(payload, scales, left)


def restored(
    sent: NDArray[np.float32], digits: NDArray[np.generic], scale: float, upload: Upload
) -> Float32:
    """Return the weights that a rounded change makes of those that were sent."""
    return np.asarray(sent + change_of(digits, scale, upload))


def change_of(digits: NDArray[np.generic], scale: float, upload: Upload) -> Float32:
    """Return a rounded change as float32; not finite where the digits are not."""
    if upload == "bfloat16":
        return (digits.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return digits.astype(np.float32) * np.float32(scale)


def _scale(change: Float32, upload: Upload) -> float:
    """Return the unit of a tensor's digits: 1 where nothing changed."""
    largest = float(np.abs(change).max(initial=0))
    if largest == 0 or upload == "bfloat16":
        return 1.0
    if upload == "int8":
        return max(largest / INT8_STEPS, float(np.finfo(np.float32).tiny))
    return float(2.0 ** np.ceil(np.log2(largest)))


def _digits(change: Float32, scale: float, upload: Upload) -> NDArray[np.generic]:
    if upload == "int8":
        return np.asarray(np.clip(np.rint(change / scale), -INT8_STEPS, INT8_STEPS), np.int8)
    if upload == "float16":
        return (change / np.float32(scale)).astype(np.float16)
    bits = np.ascontiguousarray(change).view(np.uint32)
    to_even = (bits >> 16) & 1
    return np.asarray((bits + np.uint32(0x7FFF) + to_even) >> 16, np.uint16)
