"""Records and weights to and from Flower's messages.

A message holds one JSON body and, where weights travel, a few flat buffers with their index.
"""

import io
import json
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from common.axes import Weights
from common.codec import canonical_json, decode
from common.errors import ConfigError, MessageError
from common.packing import Packed, TensorEntry, pack, unpack

T = TypeVar("T")
BODY, INDEX, WEIGHTS = "body", "index", "weights"
NUMPY, NPY_MAGIC = "numpy.ndarray", b"\x93NUMPY"  # Flower's name, and numpy's, of the format


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
        buffer = np.load(io.BytesIO(array.data), allow_pickle=False)
    except (EOFError, TypeError, ValueError, MemoryError) as error:
        raise MessageError(f"weights: damaged buffer: {type(error).__name__}") from None
    return np.asarray(buffer)


def _decode(cls: type[T], content: RecordDict, part: str) -> T:
    try:
        text = content.config_records[part]["json"]
        return decode(cls, json.loads(text), source=part)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
        raise MessageError(f"message: {part} does not fit {cls}: {error}") from None
