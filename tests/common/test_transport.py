"""Changes of weights in fewer digits: how much is lost, and that it is not lost for ever."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Weights
from common.federation import Upload
from common.transport import SENT_AS, change_of, is_rounded, restored, rounded

UPLOADS = sorted(SENT_AS)
SHAPE = (2, 3)
CHANGES = arrays(np.float32, SHAPE, elements=st.floats(-8, 8, width=32))
RELATIVE = {"float16": 2**-11, "bfloat16": 2**-8, "int8": 0.0}
"""Half a step of the last digit, of a value's own size."""
ABSOLUTE = {"float16": 2**-25, "bfloat16": 2**-130, "int8": 0.5 / 127 * 1.001}
"""Of the largest change of the tensor."""
BYTES = {"float16": 2, "bfloat16": 2, "int8": 1}


def sent(change: np.ndarray, residual: Weights | None = None, upload: Upload = "float16"):
    zero = {"w": np.zeros_like(change)}
    return rounded(zero, {"w": change}, residual or {}, upload)


def test_every_way_but_the_whole_one_has_a_number_type() -> None:
    assert set(UPLOADS) == set(get_args(Upload)) - {"float32"}


@pytest.mark.parametrize("upload", UPLOADS)
@given(change=CHANGES)
def test_a_rounded_change_is_as_close_as_its_digits_allow(upload: Upload, change: np.ndarray):
    found = sent(change, upload=upload)
    got = change_of(found.payload["w"], found.scales["w"], upload)
    largest = float(np.abs(change).max()) * (2 if upload == "float16" else 1)
    allowed = RELATIVE[upload] * np.abs(change) + ABSOLUTE[upload] * largest
    assert (np.abs(got.astype(np.float64) - change) <= allowed + 1e-37).all()


@pytest.mark.parametrize("upload", UPLOADS)
@given(change=CHANGES)
def test_what_is_sent_and_what_is_kept_are_the_change(upload: Upload, change: np.ndarray) -> None:
    found = sent(change, upload=upload)
    got = change_of(found.payload["w"], found.scales["w"], upload)
    np.testing.assert_allclose(got + found.residual["w"], change, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("upload", UPLOADS)
def test_small_changes_arrive_in_the_end(upload: Upload) -> None:
    # beside a change of 1, one of .0001 is nothing in 127 steps; after 1000 rounds it is .1
    change = np.array([[1.0, 1e-4]], np.float32)
    residual: Weights = {}
    total = np.zeros((1, 2))
    for _ in range(1000):
        found = sent(change, residual, upload)
        total += change_of(found.payload["w"], found.scales["w"], upload)
        residual = found.residual
    np.testing.assert_allclose(total, [[1000.0, 0.1]], rtol=0.05)


@pytest.mark.parametrize("upload", UPLOADS)
def test_nothing_changed_is_nothing_sent(upload: Upload) -> None:
    found = sent(np.zeros(SHAPE, np.float32), upload=upload)
    assert found.payload["w"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert found.scales == {"w": 1.0}
    assert found.residual["w"].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("upload", UPLOADS)
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e30])
def test_changes_of_any_size_stay_finite(upload: Upload, size: float) -> None:
    found = sent(np.array([[size, -size / 3]], np.float32), upload=upload)
    assert np.isfinite(change_of(found.payload["w"], found.scales["w"], upload)).all()
    assert found.scales["w"] > 0


@pytest.mark.parametrize("upload", UPLOADS)
def test_the_payload_is_a_half_or_a_quarter(upload: Upload) -> None:
    found = sent(np.ones((8, 8), np.float32), upload=upload)
    assert found.payload["w"].nbytes == BYTES[upload] * 64
    assert found.payload["w"].dtype == SENT_AS[upload]


@pytest.mark.parametrize("upload", UPLOADS)
def test_tensors_of_one_axis_are_sent_whole(upload: Upload) -> None:
    bias = np.array([0.1, -7e-9], np.float32)
    found = rounded({"b": np.ones(2, np.float32)}, {"b": bias}, {}, upload)
    assert found.payload["b"] is bias
    assert (found.scales, found.residual) == ({}, {})
    assert [is_rounded(shape) for shape in ((), (3,), (3, 1), (1, 1, 1, 1, 1))] == [
        False,
        False,
        True,
        True,
    ]


def test_weights_are_restored_from_those_that_were_sent() -> None:
    before = np.array([[1.0, -2.0]], np.float32)
    assert restored(before, np.array([[127, -64]], np.int8), 0.5, "int8").tolist() == [[64.5, -34]]
    # bfloat16 of 1.5 is 0x3FC0, of -0.25 is 0xBE80
    bits = np.array([[0x3FC0, 0xBE80]], np.uint16)
    assert restored(before, bits, 1.0, "bfloat16").tolist() == [[2.5, -2.25]]
    half = np.array([[0.5, -1.0]], np.float16)
    assert restored(before, half, 4.0, "float16").tolist() == [[3.0, -6.0]]
