"""Records and weights survive a message; whatever else arrives is a MessageError."""

import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.axes import Weights
from common.errors import MessageError
from common.messages import TrainTask, Update, Validated
from common.wire import body_of, n_bytes, to_content, weights_of

TASK = TrainTask(run="r", plan_hash="0" * 64, method="fedavg", round=2, proximal_mu=0.5)
WEIGHTS: Weights = {
    "b": np.array([[1.5, -2.0]], np.float32),
    "a": np.array([np.float32(1) / 3], np.float32),
    "n": np.array(3, np.int64),
}

NPY = Array(np.zeros(3, np.float32)).data
NPZ = b"PK\x05\x06" + bytes(18)  # an archive of no arrays, which numpy opens as well


def with_body(value: object) -> RecordDict:
    return RecordDict({"body": ConfigRecord({"json": value})})  # type: ignore[dict-item]


def with_index(content: RecordDict, *entries: object) -> RecordDict:
    content["index"] = ConfigRecord({"json": json.dumps(entries).encode()})
    return content


def test_a_record_arrives_as_it_was_sent() -> None:
    assert body_of(TrainTask, to_content(TASK)) == TASK


def test_weights_arrive_bit_for_bit_under_their_names() -> None:
    arrived = weights_of(to_content(TASK, WEIGHTS))
    assert arrived.keys() == WEIGHTS.keys()
    for name, tensor in WEIGHTS.items():
        assert (arrived[name].dtype, arrived[name].shape) == (tensor.dtype, tensor.shape)
        assert arrived[name].tobytes() == tensor.tobytes()


def test_the_order_of_the_weights_does_not_change_the_message() -> None:
    content = to_content(TASK, WEIGHTS)
    turned = to_content(TASK, dict(reversed(WEIGHTS.items())))
    assert content["index"] == turned["index"]
    assert content["weights"] == turned["weights"]


def test_weights_are_one_array_per_number_type() -> None:
    assert sorted(to_content(TASK, WEIGHTS).array_records["weights"]) == ["float32", "int64"]


def test_a_message_without_weights_carries_no_array() -> None:
    content = to_content(TASK)
    assert not content.array_records
    assert list(content) == ["body"]
    with pytest.raises(MessageError, match="index does not fit"):
        weights_of(content)


def test_the_payload_of_the_weights_is_counted() -> None:
    # 1000 float32 are 4000 bytes; Flower's frame, index and body add less than 1 kB.
    size = n_bytes(to_content(TASK, {"a": np.zeros(1000, np.float32)}))
    assert 4000 < size < 5000
    assert 0 < n_bytes(to_content(TASK)) < 500


@pytest.mark.parametrize("value", [b"", b"{", b"null", b"NaN", b"[]", b"{}", b"\xff", 5, ["x"]])
def test_a_body_that_is_no_such_record_is_a_bad_message(value: object) -> None:
    with pytest.raises(MessageError, match="message: body does not fit"):
        body_of(TrainTask, with_body(value))


def test_a_message_without_a_body_is_a_bad_message() -> None:
    with pytest.raises(MessageError, match="message: body does not fit"):
        body_of(TrainTask, RecordDict())
    with pytest.raises(MessageError, match="message: body does not fit"):
        body_of(TrainTask, RecordDict({"body": ConfigRecord({"text": "x"})}))


def test_a_record_of_another_kind_is_a_bad_message() -> None:
    with pytest.raises(MessageError, match="body does not fit"):
        body_of(Update, to_content(TASK))


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", '"0.5"', "null"])
def test_a_number_that_is_none_is_a_bad_message(seconds: str) -> None:
    text = f'{{"round": 1, "n_cases": 1, "n_steps": 1, "loss": 0.5, "seconds": {seconds}}}'
    with pytest.raises(MessageError, match="seconds: expected"):
        body_of(Update, with_body(text.encode()))


def test_a_mean_that_is_not_finite_is_a_bad_message() -> None:
    with pytest.raises(MessageError, match=r"dice\.WT: expected a finite number"):
        body_of(Validated, with_body(b'{"dice": {"WT": NaN}}'))


@pytest.mark.parametrize(
    "entries",
    [
        [{"name": "a", "dtype": "float32", "shape": [-1]}],
        [{"name": "a", "dtype": "float32", "shape": [9]}],
        [{"name": "a", "dtype": "float64", "shape": [3]}],
        [{"name": "a", "dtype": "float32", "shape": [1.5]}],
        [{"name": "a", "dtype": "float32"}],
        [{"name": "a", "dtype": "float32", "shape": [2]}],
        [],
        ["a"],
    ],
)
def test_an_index_that_does_not_fit_is_a_bad_message(entries: list[object]) -> None:
    content = to_content(TASK, {"a": np.zeros(3, np.float32)})
    with pytest.raises(MessageError):
        weights_of(with_index(content, *entries))


def test_an_index_without_weights_is_a_bad_message() -> None:
    content = to_content(TASK, WEIGHTS)
    del content["weights"]
    with pytest.raises(MessageError, match="expected weights, found none"):
        weights_of(content)


def test_a_buffer_of_doubles_under_the_name_of_floats_is_a_bad_message() -> None:
    content = to_content(TASK, {"a": np.zeros(3, np.float32)})
    content["weights"] = ArrayRecord({"float32": Array(np.zeros(3, np.float64))})
    with pytest.raises(MessageError, match="number type 'float32' is not expected"):
        weights_of(content)


@pytest.mark.parametrize(
    ("stype", "data"),
    [
        ("numpy.ndarray", b"damaged"),
        ("numpy.ndarray", b""),
        ("numpy.ndarray", NPZ),
        ("other", b""),
        ("other", NPY),
    ],
)
def test_a_damaged_buffer_is_a_bad_message(stype: str, data: bytes) -> None:
    content = to_content(TASK, {"a": np.zeros(3, np.float32)})
    damaged = Array(dtype="float32", shape=(3,), stype=stype, data=data)
    content["weights"] = ArrayRecord({"float32": damaged})
    with pytest.raises(MessageError, match=r"weights: expected a buffer of type numpy\.ndarray"):
        weights_of(content)


@pytest.mark.parametrize("n_bytes", [7, 60, 130])
def test_a_buffer_that_ends_early_is_a_bad_message(n_bytes: int) -> None:
    content = to_content(TASK, {"a": np.zeros(3, np.float32)})
    cut = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=NPY[:n_bytes])
    content["weights"] = ArrayRecord({"float32": cut})
    with pytest.raises(MessageError, match="weights: damaged buffer: "):
        weights_of(content)


def test_a_buffer_of_objects_is_a_bad_message() -> None:
    data = NPY.replace(b"'<f4'", b"'|O' ")
    content = to_content(TASK, {"a": np.zeros(3, np.float32)})
    objects = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=data)
    content["weights"] = ArrayRecord({"float32": objects})
    with pytest.raises(MessageError, match="weights: damaged buffer: ValueError"):
        weights_of(content)


def test_a_bottomless_body_is_a_bad_message() -> None:
    with pytest.raises(MessageError, match="message: body does not fit"):
        body_of(TrainTask, with_body(b"[" * 100_000))
