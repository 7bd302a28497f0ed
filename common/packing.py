"""Weights as a few flat buffers, one per number type, with an index.

Flower's cost is per object, not per byte: 120 tensors take three times as long as one.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights
from common.codec import record
from common.errors import MessageError

MAX_DIMENSIONS = 8  # a 3D convolution's weight has five
MAX_SIZE = 2**31  # of one axis
ALLOWED_TYPES = frozenset({"float32", "float16", "int64", "int8", "uint8", "uint16"})


def weights_digest(weights: Weights) -> str:
    """Return the SHA-256 of all tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = np.asarray(weights[name], order="C")
        digest.update(f"{name} {tensor.dtype} {tensor.shape};".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


@record
class TensorEntry:
    """Where one tensor lies; entries of one type follow each other in its buffer."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Packed:
    """An index in name order, and one flat buffer per number type."""

    index: tuple[TensorEntry, ...]
    buffers: dict[str, NDArray[np.generic]]

    @property
    def n_bytes(self) -> int:
        """Size of all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers.values())


def pack(weights: Weights) -> Packed:
    """Flatten weights in name order; `unpack(pack(w)) == w`."""
    index = tuple(
        TensorEntry(name=name, dtype=tensor.dtype.name, shape=tensor.shape)
        for name, tensor in sorted(weights.items())
    )
    buffers: dict[str, NDArray[np.generic]] = {}
    for dtype in sorted({entry.dtype for entry in index}):
        entries = [entry for entry in index if entry.dtype == dtype]
        buffer = np.empty(sum(math.prod(entry.shape) for entry in entries), dtype)
        start = 0
        for entry in entries:
            stop = start + math.prod(entry.shape)
            buffer[start:stop] = weights[entry.name].reshape(-1)
            start = stop
        buffers[dtype] = buffer
    return Packed(index, buffers)


def unpack(packed: Packed) -> Weights:
    """Return the tensors as views into the buffers.

    Raises:
        MessageError: when index and buffers do not fit, or a type is not allowed.
    """
    if {entry.dtype for entry in packed.index} != set(packed.buffers):
        raise MessageError("weights: index and buffers name different number types")
    positions = dict.fromkeys(packed.buffers, 0)
    weights: dict[str, NDArray[np.generic]] = {}
    for entry in packed.index:
        if entry.name in weights:
            raise MessageError(f"weights: {entry.name}: expected once, found twice")
        start = positions[entry.dtype]
        stop = start + math.prod(entry.shape)  # Python's integers do not wrap
        weights[entry.name] = _slice(packed, entry, start, stop)
        positions[entry.dtype] = stop
    for dtype, stop in positions.items():
        if packed.buffers[dtype].size != stop:
            raise MessageError(f"weights: {dtype} buffer is longer than its index says")
    return weights


def _slice(packed: Packed, entry: TensorEntry, start: int, stop: int) -> NDArray[np.generic]:
    buffer = packed.buffers[entry.dtype]
    if entry.dtype not in ALLOWED_TYPES or buffer.dtype.name != entry.dtype or buffer.ndim != 1:
        raise MessageError(f"weights: {entry.name}: number type {entry.dtype!r} is not expected")
    plausible = len(entry.shape) <= MAX_DIMENSIONS and all(
        0 <= size <= MAX_SIZE for size in entry.shape
    )
    if not plausible or stop > buffer.size:
        raise MessageError(f"weights: {entry.name}: shape {entry.shape} does not fit the buffer")
    try:
        return buffer[start:stop].reshape(entry.shape)
    except ValueError:  # an axis of 0 beside axes whose product numpy cannot hold
        raise MessageError(f"weights: {entry.name}: shape {entry.shape} is too large") from None
