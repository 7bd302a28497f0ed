"""Records and weights to and from Flower's messages.

A message holds one JSON body and, where weights travel, a few flat buffers with their index.
"""

import io
import json
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.lib.format import read_array_header_1_0, read_magic
from numpy.typing import NDArray

from common.axes import Weights
from common.codec import canonical_json, decode
from common.errors import ConfigError, MessageError
from common.packing import Packed, TensorEntry, pack, unpack

T = TypeVar("T")
BODY, INDEX, WEIGHTS = "body", "index", "weights"
NUMPY = "numpy.ndarray"  # Flower's name of the format
NPY_MAGIC = b"\x93NUMPY"
NPY_VERSION = (1, 0)  # which numpy writes for every short header
MAX_HEADER = 2**16 + 10  # bytes, of version 1.0


def to_content(body: object, weights: Weights | None = None) -> RecordDict:
    """Return the content of a Flower message for a record and, optionally, weights."""
    content = RecordDict({BODY: ConfigRecord({"json": canonical_json(body)})})
    if weights is not None:
        packed = pack(weights)
        arrays = {dtype: Array(buffer) for dtype, buffer in packed.buffers.items()}
        content[WEIGHTS] = ArrayRecord(arrays)
        content[INDEX] = ConfigRecord({"json": canonical_json(packed.index)})
    return content


def body_of(cls: type[T], content: RecordDict) -> T:
    """Read the record of a message.

    Raises:
        MessageError: when it is missing or does not fit `cls`.
    """
    return _decode(cls, content, BODY)


def weights_of(content: RecordDict) -> Weights:
    """Read the weights of a message as views into its buffers.

    Raises:
        MessageError: when they are missing or index and buffers do not fit.
    """
    index = _decode(tuple[TensorEntry, ...], content, INDEX)
    if WEIGHTS not in content.array_records:
        raise MessageError("message: expected weights, found none")
    arrays = content.array_records[WEIGHTS]
    return unpack(Packed(index, {dtype: _buffer(array) for dtype, array in arrays.items()}))


def n_bytes(content: RecordDict) -> int:
    """Return how many bytes of payload a message carries."""
    arrays = sum(record.count_bytes() for record in content.array_records.values())
    return arrays + sum(record.count_bytes() for record in content.config_records.values())


def _buffer(array: Array) -> NDArray[Any]:
    """Read one buffer; whatever is wrong with foreign bytes is a `MessageError`."""
    if array.stype != NUMPY or not array.data.startswith(NPY_MAGIC):
        raise MessageError(f"weights: expected a buffer of type {NUMPY}, found {array.stype!r}")
    try:
        return _in_place(array.data)
    except (EOFError, TypeError, ValueError, MemoryError) as error:
        raise MessageError(f"weights: damaged buffer: {type(error).__name__}") from None


def _in_place(data: bytes) -> NDArray[Any]:
    """Return the array that lies in numpy's format in `data`, read-only; `np.load` would copy it.

    Raises:
        ValueError: when it is no such array, or its size is not what its header says.
    """
    head = io.BytesIO(data[:MAX_HEADER])
    if read_magic(head) != NPY_VERSION:
        raise ValueError("expected version 1.0")
    shape, _, dtype = read_array_header_1_0(head)
    if dtype.hasobject:
        raise ValueError("expected numbers")
    return np.frombuffer(data, dtype, offset=head.tell()).reshape(shape)


def _decode(cls: type[T], content: RecordDict, part: str) -> T:
    try:
        text = content.config_records[part]["json"]
        return decode(cls, json.loads(text), source=part)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
        raise MessageError(f"message: {part} does not fit {cls}: {error}") from None
