"""A weighted mean of weights whose result does not depend on the order of the replies, bit for bit.

Floating-point addition is not associative: sites that answer in another order would give another
model. Here every product `n * w` (exact in float64) is rounded once to a fixed grid and integers
are added, which is associative and commutative. It streams: one 64-bit integer per parameter,
however many sites there are. A tensor whose sum might not fit gets a second integer for the high
digits; that changes no digit of the sum.

Laws: fold order is irrelevant; folding parts and merging equals folding all; the mean of one
update is that update (exactly for magnitudes from 2**-29, to 2**-53 below; -0.0 becomes 0.0).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights

FINE_BITS = 52  # the grid 2**-52: exact for every float32 from 2**-29 in magnitude
COARSE_BITS = 24  # the grid of the high digits, 2**-24: holds |n * w| below 2**38
CARRY_BITS = FINE_BITS - COARSE_BITS
HALF_CARRY = 1 << (CARRY_BITS - 1)
ONE_INTEGER = 1 << 62  # sums of magnitudes below it fit one integer, carries included
MAX_WEIGHT = 2.0**20  # of an accepted update; with at most 2**17 cases below the coarse limit
MAX_CASES = 2**17
PIECE = 2**17  # elements whose digits stay in a core's cache while they are made
WORTH_THREADS = 16  # pieces; numpy leaves the interpreter to others while it computes
N_THREADS = min(4, os.cpu_count() or 1)  # memory is busy with fewer

T = TypeVar("T")
Digits: TypeAlias = NDArray[np.int64]
Pieces: TypeAlias = Sequence[tuple[str, slice]]
"""Names of tensors, and which of their elements."""


@dataclass
class ExactSum:
    """Running sum of n * w per tensor, and of n."""

    n_cases: int = 0
    fine: dict[str, Digits] = field(default_factory=dict)
    """Sums in units of 2**-52, or their low digits beside `coarse`."""
    coarse: dict[str, Digits] = field(default_factory=dict)
    """High digits in units of 2**-24, of tensors that need them."""
    bound: dict[str, int] = field(default_factory=dict)
    """No element's sum of magnitudes exceeds this many units of 2**-52."""


def fold(total: ExactSum, weights: Weights, n_cases: int) -> None:
    """Add one site's float32 weights, counted `n_cases` times; changes `total` in place.

    Raises:
        ValueError: when the tensors are not those of earlier folds, or a bound is exceeded.
    """
    if total.fine and set(weights) != set(total.fine):
        raise ValueError("fold: expected the same tensors in every update")
    if not 0 < n_cases <= MAX_CASES - total.n_cases:
        raise ValueError(f"fold: expected 1 to {MAX_CASES} cases in all, found {n_cases} more")
    largest = _each_share(weights, partial(_largest, weights))
    for name, tensor in weights.items():
        magnitude = max(share.get(name, 0.0) for share in largest)
        _make_room(total, name, tensor.shape, magnitude * n_cases)
    _each_share(weights, partial(_add, total, weights, n_cases))
    total.n_cases += n_cases


def mean(total: ExactSum) -> Weights:
    """Return the case-weighted mean as float32.

    Raises:
        ValueError: when nothing was folded.
    """
    if total.n_cases == 0:
        raise ValueError("mean: expected at least one update")
    return {name: _value(total, name).astype(np.float32) for name in total.fine}


def _value(total: ExactSum, name: str) -> NDArray[np.float64]:
    value = total.fine[name] * 2.0**-FINE_BITS
    if name in total.coarse:
        value += total.coarse[name] * 2.0**-COARSE_BITS
    return np.asarray(value / total.n_cases)


def _make_room(total: ExactSum, name: str, shape: tuple[int, ...], largest: float) -> None:
    """See to it that adding a tensor with products up to `largest` cannot overflow.

    Bounds are integers, so that whether a sum has high digits does not depend on the order either.
    """
    steps = int(np.ceil(largest * 2.0**FINE_BITS))  # exact: the product has 41 bits
    total.bound[name] = total.bound.get(name, 0) + steps
    if name not in total.fine:
        total.fine[name] = np.zeros(shape, np.int64)
    if total.bound[name] >= ONE_INTEGER and name not in total.coarse:
        fine = total.fine[name]
        total.coarse[name] = _carry(fine)
        fine -= total.coarse[name] << CARRY_BITS


def _each_share(weights: Weights, act: Callable[[Pieces], T]) -> list[T]:
    """Return what `act` makes of every thread's share of the pieces, in the order of the shares."""
    pieces = [
        (name, slice(start, min(start + PIECE, tensor.size)))
        for name, tensor in weights.items()
        for start in range(0, tensor.size, PIECE)
    ]
    n_threads = N_THREADS if len(pieces) >= WORTH_THREADS else 1
    with ThreadPoolExecutor(n_threads) as threads:
        return list(threads.map(act, [pieces[first::n_threads] for first in range(n_threads)]))


def _largest(weights: Weights, pieces: Pieces) -> dict[str, float]:
    """Return the largest magnitude of each tensor in these pieces."""
    found: dict[str, float] = {}
    for name, part in pieces:
        piece = weights[name].reshape(-1)[part]
        found[name] = max(found.get(name, 0.0), float(piece.max()), -float(piece.min()))
    return found


def _add(total: ExactSum, weights: Weights, n_cases: int, pieces: Pieces) -> None:
    """Add pieces of an update that no other thread adds."""
    products, digits = np.empty(PIECE), np.empty(PIECE, np.int64)
    for name, part in pieces:
        product = products[: part.stop - part.start]
        np.copyto(product, weights[name].reshape(-1)[part])
        fine = total.fine[name].reshape(-1)[part]
        if name in total.coarse:
            product *= n_cases
            _add_wide(total.coarse[name].reshape(-1)[part], fine, product)
            continue
        product *= n_cases * 2.0**FINE_BITS  # exact
        np.rint(product, out=product)
        np.copyto(digits[: product.size], product, casting="unsafe")
        fine += digits[: product.size]


def _add_wide(coarse: Digits, fine: Digits, product: NDArray[np.float64]) -> None:
    """Add and carry, so that the pair of integers of a sum is unique and never overflows."""
    high = np.rint(product * 2.0**COARSE_BITS)
    fine += np.rint((product - high * 2.0**-COARSE_BITS) * 2.0**FINE_BITS).astype(np.int64)
    carry = _carry(fine)
    fine -= carry << CARRY_BITS
    coarse += high.astype(np.int64) + carry


def _carry(fine: Digits) -> Digits:
    """Return what goes to the high digits: to the nearest, so that a small sum keeps few digits."""
    return np.asarray((fine + HALF_CARRY) >> CARRY_BITS)
