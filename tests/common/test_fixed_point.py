import numpy as np
import pytest

from common.errors import MessageError
from common.fixed_point import FRACTION_BITS, RANGE, add_to, encoded, mean_weights, parts
from common.round_sums import n_sums, of_sums, to_sums

NONE = np.zeros(0, np.uint64)
REGIONS = ("WT", "TC")


def one(value: float) -> dict[str, np.ndarray]:
    return {"w": np.array([value], np.float32)}


@pytest.mark.parametrize("change", [0.0, 2.0**-28, -(2.0**-28), 1.5, -7.75, 7.75])
def test_a_change_on_the_grid_is_exact(change: float) -> None:
    vector = encoded(one(0.0), one(change), 1.0, NONE)
    assert mean_weights(one(0.0), parts(vector, 0)[0], 1.0)["w"].tolist() == [change]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sum_of_a_thousand_largest_changes_does_not_wrap(sign: int) -> None:
    vector = encoded(one(0.0), one(sign * RANGE), 1 / 1000, NONE)
    total = np.zeros_like(vector)
    for _ in range(1000):
        add_to(total, vector, 0)
    (word, _) = parts(total, 0)[0].view(np.int32).tolist()
    assert abs(word - sign * RANGE * 2**FRACTION_BITS) <= 500


def test_the_mean_is_over_those_who_took_part() -> None:
    total = encoded(one(1.0), one(2.0), 2 / 8, NONE)
    add_to(total, encoded(one(1.0), one(0.0), 1 / 8, NONE), 0)
    found = mean_weights(one(1.0), parts(total, 0)[0], 3 / 8)["w"]
    assert found == pytest.approx([1 + (2 - 1) / 3], abs=2**-27)


@pytest.mark.parametrize("value", [7.76, -7.76, np.inf, -np.inf, np.nan])
def test_a_change_beyond_the_range_is_refused(value: float) -> None:
    with pytest.raises(MessageError, match=r"w: expected a change of at most 7\.75"):
        encoded(one(0.0), one(value), 0.5, NONE)


def test_what_has_no_words_is_refused() -> None:
    with pytest.raises(MessageError, match="expected the tensors that were sent"):
        encoded(one(0.0), {"v": np.zeros(1, np.float32)}, 0.5, NONE)
    with pytest.raises(MessageError, match=r"a share, 1\.5 <= 1"):
        encoded(one(0.0), one(0.0), 1.5, NONE)
    with pytest.raises(MessageError, match="expected float32 tensors, found others: n"):
        encoded({"n": np.zeros(1, np.int64)}, {"n": np.zeros(1, np.int64)}, 1.0, NONE)


# Numbers beside the weights


def test_sums_of_rounds_are_means_over_those_who_tell() -> None:
    told = [
        to_sums(3, 0.5, {"WT": 0.5, "TC": 0.25}, REGIONS),
        to_sums(1, -1.5, None, REGIONS),
        to_sums(4, None, {"WT": 1.0, "TC": 0.75}, REGIONS),
    ]
    total = np.zeros(n_sums(REGIONS), np.uint64)
    for numbers in told:
        total += numbers
    found = of_sums(total, REGIONS, 3, 8)
    assert (found.count, found.loss, found.n_validating) == (8, 0.0, 2)
    assert found.dice == pytest.approx({"WT": 0.75, "TC": 0.5}, abs=1e-9)


def test_without_losses_and_validation_there_is_none() -> None:
    found = of_sums(to_sums(2, None, None, REGIONS), REGIONS, 1, 2)
    assert (found.loss, found.dice) == (None, None)
    assert of_sums(to_sums(2, float("nan"), None, REGIONS), REGIONS, 1, 2).loss is None


@pytest.mark.parametrize(
    ("place", "value"), [(0, 0), (0, 9), (1, 9), (2, 2**60), (3, 2), (4, -1), (5, 2**31)]
)
def test_numbers_that_cannot_be_are_refused(place: int, value: int) -> None:
    numbers = to_sums(2, 0.5, {"WT": 0.5, "TC": 0.5}, REGIONS)
    numbers.view(np.int64)[place] = value
    with pytest.raises(MessageError, match="masks did not cancel"):
        of_sums(numbers, REGIONS, 1, 8)
