"""A site sends the largest part of its update, and the coordinator fills in the rest."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Weights
from common.errors import MessageError
from common.partial_sharing import complete, withhold

FINITE = st.floats(-100, 100, width=32)
RECEIVED: Weights = {
    "a": np.array([[1.0, 1.0], [1.0, 1.0]], np.float32),
    "b": np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0], np.float32),
}
# by how much: 3 0 -4 1 | 2 -5 0.5 0 7 -1; the five largest are 7, -5, -4, 3, 2
TRAINED: Weights = {
    "a": np.array([[4.0, 1.0], [-3.0, 2.0]], np.float32),
    "b": np.array([2.0, -5.0, 0.5, 0.0, 7.0, -1.0], np.float32),
}


def test_the_largest_elements_of_the_update_are_shared() -> None:
    payload = withhold(TRAINED, RECEIVED, 0.5)
    assert sorted(payload) == ["float32.places", "float32.values"]
    assert payload["float32.values"].tolist() == [4.0, -3.0, 2.0, -5.0, 7.0]
    assert payload["float32.places"].tolist() == [0b10101100, 0b10000000]


def test_what_is_withheld_is_as_the_site_received_it() -> None:
    whole = complete(withhold(TRAINED, RECEIVED, 0.5), RECEIVED, 0.5)
    assert whole["a"].tolist() == [[4.0, 1.0], [-3.0, 1.0]]
    assert whole["b"].tolist() == [2.0, -5.0, 0.0, 0.0, 7.0, 0.0]


def test_completing_changes_nothing_of_what_was_sent() -> None:
    before = {name: tensor.tobytes() for name, tensor in RECEIVED.items()}
    complete(withhold(TRAINED, RECEIVED, 0.5), RECEIVED, 0.5)
    assert {name: tensor.tobytes() for name, tensor in RECEIVED.items()} == before


def test_nothing_withheld_is_the_update_itself() -> None:
    assert withhold(TRAINED, RECEIVED, 0.0) is TRAINED
    assert complete(TRAINED, RECEIVED, 0.0) is TRAINED


@pytest.mark.parametrize(
    ("fraction", "n_values"), [(0.1, 9_000), (0.25, 7_500), (0.4, 6_000), (0.99999, 1)]
)
def test_the_payload_shrinks_by_the_fraction_and_grows_by_a_bit_per_element(
    fraction: float, n_values: int
) -> None:
    received = {"w": np.zeros((100, 100), np.float32)}
    trained = {"w": np.random.default_rng(1).normal(size=(100, 100)).astype(np.float32)}
    payload = withhold(trained, received, fraction)
    assert sum(tensor.nbytes for tensor in payload.values()) == 4 * n_values + 10_000 // 8


@pytest.mark.parametrize(("fraction", "n_values"), [(0.3, 7), (0.29, 8), (0.34, 7), (0.01, 10)])
def test_the_number_of_withheld_elements_is_rounded_down(fraction: float, n_values: int) -> None:
    assert withhold(TRAINED, RECEIVED, fraction)["float32.values"].shape == (n_values,)


def test_of_elements_that_moved_alike_the_first_are_shared() -> None:
    received = {"w": np.zeros(5, np.float32)}
    trained = {"w": np.array([1, -1, 2, 1, -1], np.float32)}
    assert withhold(trained, received, 0.4)["float32.values"].tolist() == [1, -1, 2]
    assert withhold(received, received, 0.4)["float32.places"].tolist() == [0b11100000]


def test_a_value_that_is_not_a_number_is_shared_to_be_seen() -> None:
    trained = {"w": np.array([1, np.nan, 2, -np.inf], np.float32)}
    shared = withhold(trained, {"w": np.zeros(4, np.float32)}, 0.5)["float32.values"]
    assert np.isnan(shared[0])
    assert shared[1] == -np.inf


def test_weights_without_elements_are_shared_without_elements() -> None:
    nothing: Weights = {"w": np.zeros((0, 3), np.float32)}
    assert complete(withhold(nothing, nothing, 0.4), nothing, 0.4)["w"].shape == (0, 3)


@given(
    both=st.integers(1, 40).flatmap(
        lambda n: st.tuples(*[arrays(np.float32, n, elements=FINITE)] * 2)
    ),
    fraction=st.floats(0.001, 0.999),
)
def test_every_element_is_the_trained_one_or_the_received_one(
    both: tuple[np.ndarray, np.ndarray], fraction: float
) -> None:
    trained, received = both
    payload = withhold({"w": trained}, {"w": received}, fraction)
    whole = complete(payload, {"w": received}, fraction)["w"]
    shared = np.unpackbits(payload["float32.places"])[: trained.size].astype(bool)
    assert whole[shared].tobytes() == trained[shared].tobytes()
    assert whole[~shared].tobytes() == received[~shared].tobytes()
    assert np.count_nonzero(~shared) == math.floor(fraction * trained.size)
    moved = np.abs(trained - received)
    if shared.any() and not shared.all():
        assert moved[shared].min() >= moved[~shared].max()


def payload(**changed: np.ndarray) -> Weights:
    """Return five values of ten elements, with parts replaced."""
    return withhold(TRAINED, RECEIVED, 0.5) | {
        f"float32.{part}": value for part, value in changed.items()
    }


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (TRAINED, r"expected \['float32.places', 'float32.values'\], found \['a', 'b'\]"),
        (payload(more=np.zeros(1, np.float32)), "found .*'float32.more'"),
        (payload(values=np.zeros(4, np.float32)), r"5 shared values of float32, .* \(4,\)"),
        (payload(values=np.zeros(6, np.float32)), r"5 shared values of float32, .* \(6,\)"),
        (payload(values=np.zeros((5, 1), np.float32)), "5 shared values of float32"),
        (payload(values=np.zeros(5, np.float64)), "5 shared values of float32, found float64"),
        (payload(places=np.array([255], np.uint8)), r"places of 10 elements, found uint8 \(1,\)"),
        (payload(places=np.array([31, 0, 0], np.uint8)), "places of 10 elements"),
        (payload(places=np.array([31, 0], np.int64)), "places of 10 elements, found int64"),
        (payload(places=np.array([15, 0], np.uint8)), "expected 5 of 10 places"),
        (payload(places=np.array([63, 0], np.uint8)), "expected 5 of 10 places"),
        # the right number of bits, one of them beyond the last element
        (payload(places=np.array([15, 32], np.uint8)), "expected 5 of 10 places"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(sent: Weights, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        complete(sent, RECEIVED, 0.5)


def test_a_payload_of_another_fraction_is_refused() -> None:
    with pytest.raises(MessageError, match="expected 4 of 10 places"):
        complete(withhold(TRAINED, RECEIVED, 0.5), RECEIVED, 0.6)
