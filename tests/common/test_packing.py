"""Weights travel as few flat buffers; an index that does not fit them is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.axes import Weights
from common.errors import MessageError
from common.packing import Packed, TensorEntry, pack, unpack

TENSORS = st.one_of(
    arrays(np.float32, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)),
    arrays(np.float16, array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)),
    arrays(np.int64, array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)),
)
WEIGHTS = st.dictionaries(st.text(min_size=1, max_size=8), TENSORS, max_size=5)
BUFFER = np.arange(6, dtype=np.float32)


def entry(shape: tuple[int, ...], name: str = "a", dtype: str = "float32") -> TensorEntry:
    return TensorEntry(name=name, dtype=dtype, shape=shape)


def opened(*entries: TensorEntry, **buffers: np.ndarray) -> Weights:
    return unpack(Packed(entries, buffers or {"float32": BUFFER}))


@given(WEIGHTS)
def test_what_is_packed_unpacks_to_the_same_bits(weights: Weights) -> None:
    again = unpack(pack(weights))
    assert again.keys() == weights.keys()
    for name, tensor in weights.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        assert again[name].tobytes() == tensor.tobytes()


@given(WEIGHTS)
def test_the_order_of_the_weights_is_irrelevant(weights: Weights) -> None:
    turned = pack(dict(reversed(weights.items())))
    assert turned.index == pack(weights).index
    for dtype, buffer in pack(weights).buffers.items():
        assert turned.buffers[dtype].tobytes() == buffer.tobytes()


def test_one_buffer_per_number_type_holds_the_tensors_by_name() -> None:
    packed = pack(
        {
            "b": np.array([[3.0, 4.0]], np.float32),
            "n": np.array(7, np.int64),
            "a": np.array([1.0, 2.0], np.float32),
        }
    )
    assert packed.index == (
        entry((2,), "a"),
        entry((1, 2), "b"),
        entry((), "n", "int64"),
    )
    assert {name: buffer.tolist() for name, buffer in packed.buffers.items()} == {
        "float32": [1.0, 2.0, 3.0, 4.0],
        "int64": [7],
    }
    assert packed.n_bytes == 24


def test_a_tensor_that_lies_transposed_in_memory_keeps_its_axes() -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert unpack(pack({"a": tensor}))["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_unpacked_tensors_are_views_and_cost_no_memory() -> None:
    tensors = opened(entry((2,), "a"), entry((2, 2), "b"))
    assert all(np.shares_memory(tensor, BUFFER) for tensor in tensors.values())


def test_no_weights_are_no_buffers() -> None:
    assert pack({}) == Packed((), {})
    assert unpack(Packed((), {})) == {}


@pytest.mark.parametrize("shape", [(-1,), (-2, -3), (6, -1, -1), (7,), (2, 2, 2), (2**62,)])
def test_a_shape_that_does_not_fit_the_buffer_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MessageError, match=r"weights: a: shape .* does not fit the buffer"):
        opened(entry(shape))


def test_a_buffer_that_is_longer_than_its_index_says_is_refused() -> None:
    with pytest.raises(MessageError, match="float32 buffer is longer than its index says"):
        opened(entry((5,)))


@pytest.mark.parametrize("dtype", ["float64", "complex64", "object", "<U3", "bool", "uint32"])
def test_a_number_type_that_is_not_expected_is_refused(dtype: str) -> None:
    with pytest.raises(MessageError, match=r"a: number type .* is not expected"):
        opened(entry((2,), dtype=dtype), **{dtype: np.zeros(2, np.dtype(dtype))})


def test_a_buffer_of_another_type_than_its_name_is_refused() -> None:
    with pytest.raises(MessageError, match="number type 'float32' is not expected"):
        opened(entry((2,)), float32=np.zeros(2, np.float64))


def test_a_buffer_that_is_not_flat_is_refused() -> None:
    with pytest.raises(MessageError, match="number type 'float32' is not expected"):
        opened(entry((2, 2)), float32=np.zeros((2, 2), np.float32))


def test_index_and_buffers_must_name_the_same_number_types() -> None:
    with pytest.raises(MessageError, match="index and buffers name different number types"):
        opened(entry((6,)), float32=BUFFER, int64=np.zeros(0, np.int64))
    with pytest.raises(MessageError, match="index and buffers name different number types"):
        unpack(Packed((entry((6,)),), {}))


@pytest.mark.parametrize("shape", [(2**40, 2**40), (2**32, 2**31), (2**70,), (0, 2**62), (1,) * 65])
def test_an_absurd_shape_is_refused_as_a_bad_message(shape: tuple[int, ...]) -> None:
    with pytest.raises(MessageError, match=r"weights: b: shape .* (does not fit|is too large)"):
        opened(entry((6 if math.prod(shape) != 1 else 5,)), entry(shape, "b"))


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(MessageError, match="weights: a: expected once, found twice"):
        opened(entry((3,)), entry((3,)))
