"""The weighted mean is the same bit for bit in any order, and is exact where floats allow it."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.axes import Weights
from server.exact_sum import MAX_CASES, PIECE, WORTH_THREADS, ExactSum, fold, mean

# Values whose last bit lies on the fine grid, up to the largest that an update may hold.
VALUES = st.one_of(
    st.just(0.0),
    st.floats(2**-29, 2**20, width=32),
    st.floats(-(2**20), -(2**-29), width=32),
)
CASES = st.integers(1, 20_000)
Update = tuple[np.ndarray, int]
UPDATES = st.lists(st.tuples(arrays(np.float32, 4, elements=VALUES), CASES), min_size=1, max_size=6)


def summed(updates: Sequence[Update]) -> ExactSum:
    total = ExactSum()
    for tensor, n_cases in updates:
        fold(total, {"w": tensor}, n_cases)
    return total


def mean_of(updates: Sequence[Update]) -> np.ndarray:
    return mean(summed(updates))["w"]


def tensor(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


@given(UPDATES, st.randoms(use_true_random=False))
def test_the_order_of_the_updates_is_irrelevant_bit_for_bit(
    updates: list[Update], random: object
) -> None:
    turned = list(updates)
    random.shuffle(turned)  # type: ignore[attr-defined]
    assert mean_of(turned).tobytes() == mean_of(updates).tobytes()


def test_the_order_is_irrelevant_where_floats_would_lose_a_case() -> None:
    # In float32, 1e6 + 1e-2 - 1e6 is 0 or 0.01, by order.
    updates = [(tensor(1e6), 1), (tensor(1e-2), 1), (tensor(-1e6), 1)]
    third = np.float32(0.01) / np.float64(3)
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0)):
        assert mean_of([updates[i] for i in order]).tolist() == [np.float32(third)]


@given(arrays(np.float32, (2, 3), elements=VALUES), CASES)
def test_one_update_returns_itself_bit_for_bit(weights: np.ndarray, n_cases: int) -> None:
    result = mean_of([(weights, n_cases)])
    assert (result.dtype, result.shape) == (np.float32, (2, 3))
    assert result.tobytes() == weights.tobytes()


@given(arrays(np.float32, 4, elements=VALUES), st.lists(CASES, min_size=1, max_size=6))
def test_equal_updates_return_themselves_bit_for_bit(weights: np.ndarray, cases: list[int]) -> None:
    assert mean_of([(weights, n_cases) for n_cases in cases]).tobytes() == weights.tobytes()


def test_cases_weigh_the_updates() -> None:
    # n = 10, 30, 60 of 100: one update of 1 among zeros shows its weight.
    zero, one = tensor(0), tensor(1)
    assert mean_of([(one, 10), (zero, 30), (zero, 60)]).tolist() == [np.float32(0.1)]
    assert mean_of([(zero, 10), (one, 30), (zero, 60)]).tolist() == [np.float32(0.3)]
    assert mean_of([(zero, 10), (zero, 30), (one, 60)]).tolist() == [np.float32(0.6)]
    # 0.1 * 1 + 0.3 * 2 + 0.6 * 3 = 2.5
    assert mean_of([(tensor(1), 10), (tensor(2), 30), (tensor(3), 60)]).tolist() == [2.5]


@given(UPDATES, st.integers(1, 60))
def test_more_of_all_cases_change_nothing(updates: list[Update], factor: int) -> None:
    # On a coarse grid every sum is a float64, so that both quotients are rounded once.
    exact = [(np.round(np.clip(w, -1000, 1000) * 8) / 8, n % 20 + 1) for w, n in updates]
    scaled = [(w, n * factor) for w, n in exact]
    assert mean_of(scaled).tobytes() == mean_of(exact).tobytes()


@given(UPDATES)
def test_the_mean_is_numpys_to_the_precision_of_float32(updates: list[Update]) -> None:
    values = np.stack([w for w, _ in updates]).astype(np.float64)
    cases = [n for _, n in updates]
    expected = np.average(values, axis=0, weights=cases)
    scale = np.average(np.abs(values), axis=0, weights=cases)  # what cancels leaves its rounding
    error = np.abs(mean_of(updates).astype(np.float64) - expected)
    assert (error <= 2.0**-24 * np.abs(expected) + 1e-14 * scale).all()


@given(UPDATES)
def test_the_mean_lies_between_the_updates(updates: list[Update]) -> None:
    values = np.stack([w for w, _ in updates])
    result = mean_of(updates)
    assert (values.min(axis=0) <= result).all()
    assert (result <= values.max(axis=0)).all()


def test_the_largest_sum_that_is_accepted_does_not_overflow() -> None:
    largest = 2.0**20
    halves = [(tensor(largest, -largest), MAX_CASES // 2)] * 2
    assert mean_of(halves).tolist() == [largest, -largest]
    many = [(tensor(-largest), 1)] * 100 + [(tensor(-largest), MAX_CASES - 100)]
    assert mean_of(many).tolist() == [-largest]


def test_small_weights_survive_beside_large_ones() -> None:
    # 1 + 2**-40 is lost in float32, yet cancels exactly here: 2**-40 / 3.
    updates = [(tensor(2.0**19), 1), (tensor(2.0**-40), 1), (tensor(-(2.0**19)), 1)]
    assert mean_of(updates).tolist() == [np.float32(2.0**-40 / 3)]


def test_every_tensor_has_its_own_mean_and_keeps_its_axes() -> None:
    total = ExactSum()
    first: Weights = {"a": np.full((1, 2), 1, np.float32), "b": np.array(5, np.float32)}
    fold(total, first, 1)
    fold(total, {"b": np.array(9, np.float32), "a": np.full((1, 2), 4, np.float32)}, 2)
    result = mean(total)
    assert {name: value.shape for name, value in result.items()} == {"a": (1, 2), "b": ()}
    assert result["a"].tolist() == [[3.0, 3.0]]
    assert result["b"] == np.float32(23 / 3)
    assert {value.dtype for value in result.values()} == {np.dtype(np.float32)}


def test_an_update_is_not_changed_by_folding_it() -> None:
    weights = tensor(0.1, 0.2)
    total = summed([(weights, 3)])
    fold(total, {"w": weights}, 4)
    assert weights.tolist() == tensor(0.1, 0.2).tolist()


@pytest.mark.parametrize("n_cases", [0, -1, MAX_CASES + 1])
def test_a_number_of_cases_out_of_bounds_is_refused(n_cases: int) -> None:
    total = ExactSum()
    with pytest.raises(ValueError, match="expected 1 to 131072 cases in all"):
        fold(total, {"w": tensor(1)}, n_cases)
    assert (total.n_cases, total.coarse) == (0, {})


def test_all_updates_together_have_a_bound_and_the_one_beyond_changes_nothing() -> None:
    total = summed([(tensor(1), MAX_CASES)])
    with pytest.raises(ValueError, match="131072 cases in all, found 1 more"):
        fold(total, {"w": tensor(9)}, 1)
    assert total.n_cases == 131_072
    assert mean(total)["w"].tolist() == [1.0]


@pytest.mark.parametrize("names", [("w", "v"), ("v",), ()])
def test_an_update_of_other_tensors_is_refused_and_changes_nothing(names: tuple[str, ...]) -> None:
    total = summed([(tensor(1), 2)])
    with pytest.raises(ValueError, match="expected the same tensors in every update"):
        fold(total, dict.fromkeys(names, tensor(9)), 1)
    assert total.n_cases == 2
    assert mean(total)["w"].tolist() == [1.0]


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="expected at least one update"):
        mean(ExactSum())


def test_a_small_negative_weight_returns_itself() -> None:
    weights = tensor(-(1 + 2**-23) * 2.0**-28)
    assert mean_of([(weights, 1)]).tobytes() == weights.tobytes()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n_cases", [1, 3, MAX_CASES])
def test_the_smallest_weights_that_the_law_promises_return_themselves(
    sign: int, n_cases: int
) -> None:
    smallest = sign * 2.0**-29
    weights = tensor(smallest, smallest * (1 + 2**-23), smallest * (2 - 2**-23))
    assert mean_of([(weights, n_cases)]).tobytes() == weights.tobytes()


TINY = st.floats(-(2**-29), 2**-29, width=32)


@given(arrays(np.float32, 4, elements=TINY), CASES)
def test_a_tiny_weight_returns_to_the_last_digit_of_the_fine_grid(
    weights: np.ndarray, n_cases: int
) -> None:
    error = np.abs(mean_of([(weights, n_cases)]).astype(np.float64) - weights)
    assert (error <= 2.0**-53).all()


def test_what_is_smaller_than_the_fine_grid_becomes_zero() -> None:
    assert mean_of([(tensor(2.0**-54, -(2.0**-54), 1e-30), 1)]).tolist() == [0.0, 0.0, 0.0]
    # more cases move it above the grid: 4 * 2**-54 is one step of 2**-52
    assert mean_of([(tensor(2.0**-54), 4)]).tolist() == [2.0**-54]


@given(UPDATES, st.randoms(use_true_random=False))
def test_digits_that_need_a_second_integer_change_nothing_in_any_order(
    updates: list[Update], random: object
) -> None:
    # 2**20 * 5000 cases is above 2**10, where one integer ends; zero elsewhere, it adds nothing
    large = (tensor(2.0**20, 0, 0, 0), 5000)
    turned = [*updates, large]
    random.shuffle(turned)  # type: ignore[attr-defined]
    first, last = summed([large, *updates]), summed([*updates, large])
    assert set(first.coarse) == set(last.coarse) == {"w"}
    assert mean(first)["w"].tobytes() == mean(last)["w"].tobytes() == mean_of(turned).tobytes()


def test_weights_of_a_trained_network_need_one_integer() -> None:
    assert summed([(tensor(0.2, -0.5), 500), (tensor(0.9, -0.1), 500)]).coarse == {}
    assert set(summed([(tensor(0.2), 500), (tensor(-1.9), 500)]).coarse) == {"w"}


@pytest.mark.parametrize("size", [WORTH_THREADS * PIECE, 3 * PIECE + 1, PIECE, 1])
def test_large_tensors_in_pieces_by_several_threads_have_the_same_mean(size: int) -> None:
    values = np.arange(size, dtype=np.float32) / size - np.float32(0.5)
    shown = mean_of([(values, 3), (-values, 1), (values, 2)])  # (3 - 1 + 2) / 6
    np.testing.assert_allclose(shown, values * (2 / 3), rtol=1e-6)
    assert mean_of([(values, 7)]).tobytes() == (values + np.float32(0)).tobytes()


def test_a_negative_zero_becomes_a_positive_one() -> None:
    found = mean_of([(tensor(-0.0, 0.0, -1e-30), 1)])
    assert found.tobytes() == bytes(12)  # no sign bit
