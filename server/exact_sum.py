"""A weighted mean of weights whose result does not depend on the order of the replies, bit for bit.

Floating-point addition is not associative: sites that answer in another order would give another
model. Here every product `n * w` (exact in float64) is split into two integers on fixed grids
and integers are added, which is associative and commutative. It streams: two 64-bit integers per
parameter, however many sites there are.

Laws: fold order is irrelevant; folding parts and merging equals folding all; the mean of one
update is that update (exactly for magnitudes from 2**-57, to 2**-81 below; -0.0 becomes 0.0).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.axes import Weights

COARSE_BITS = 24  # coarse grid 2**-24: holds |n * w| below 2**38
FINE_BITS = 80  # fine grid 2**-80: exact for every float32 above 2**-56 in magnitude
CARRY_BITS = FINE_BITS - COARSE_BITS
HALF_CARRY = 1 << (CARRY_BITS - 1)
MAX_WEIGHT = 2.0**20  # of an accepted update; with at most 2**17 cases below the coarse limit
MAX_CASES = 2**17


@dataclass
class ExactSum:
    """Running sum of n * w per tensor, and of n."""

    n_cases: int = 0
    coarse: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    fine: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def fold(total: ExactSum, weights: Weights, n_cases: int) -> None:
    """Add one site's float32 weights, counted `n_cases` times; changes `total` in place.

    Raises:
        ValueError: when the tensors are not those of earlier folds, or a bound is exceeded.
    """
    if total.coarse and set(weights) != set(total.coarse):
        raise ValueError("fold: expected the same tensors in every update")
    if not 0 < n_cases <= MAX_CASES - total.n_cases:
        raise ValueError(f"fold: expected 1 to {MAX_CASES} cases in all, found {n_cases} more")
    for name, tensor in weights.items():
        product = tensor.astype(np.float64) * n_cases
        coarse = np.rint(product * 2.0**COARSE_BITS)
        fine = np.rint((product - coarse * 2.0**-COARSE_BITS) * 2.0**FINE_BITS)
        _add(total, name, coarse.astype(np.int64), fine.astype(np.int64))
    total.n_cases += n_cases


def mean(total: ExactSum) -> Weights:
    """Return the case-weighted mean as float32.

    Raises:
        ValueError: when nothing was folded.
    """
    if total.n_cases == 0:
        raise ValueError("mean: expected at least one update")
    return {name: _value(total, name).astype(np.float32) for name in total.coarse}


def _value(total: ExactSum, name: str) -> NDArray[np.float64]:
    coarse = total.coarse[name] * 2.0**-COARSE_BITS
    return np.asarray((coarse + total.fine[name] * 2.0**-FINE_BITS) / total.n_cases)


def _add(total: ExactSum, name: str, coarse: NDArray[np.int64], fine: NDArray[np.int64]) -> None:
    """Add and carry, so that the pair of integers of a sum is unique and never overflows."""
    fine = fine + total.fine.get(name, np.int64(0))
    carry = (fine + HALF_CARRY) >> CARRY_BITS  # to the nearest: a small sum keeps few digits
    total.fine[name] = fine - (carry << CARRY_BITS)
    total.coarse[name] = total.coarse.get(name, np.int64(0)) + coarse + carry
