"""What noisy steps cost, in epsilon at a delta; the only file that knows opacus.

Two upper bounds of the same quantity are computed, and the smaller one is charged: Renyi
differential privacy (Mironov et al. 2019, Renyi differential privacy of the sampled Gaussian
mechanism) and the upper end of the interval that numerical composition of privacy loss random
variables gives (Gopi et al. 2021, Numerical composition of differential privacy). Both are of
Poisson sampling and of data sets that differ in one unit; steps of several kinds add up in any
order. What cannot be computed costs infinity.
"""

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np

from common.errors import ConfigError
from common.privacy.mechanism import NoisySteps

ORDERS = (  # from 2: the series of smaller ones, and of fractions, take seconds
    *(x / 2 for x in range(4, 22)),
    *map(float, range(11, 64)),
    *(64.0, 80.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 1000.0),  # for much noise
)
EPSILON_ERROR = 0.01  # half the interval's width besides that of delta; opacus' own
DELTA_ERROR = 1 / 1000  # of delta; opacus' own
MOST_POINTS = 2**21  # of the discretised privacy loss; 16 MiB, about a second for one kind of step
MOST_NOISE = 1e4  # as much noise as no model survives
LEAST_NOISE = 0.05  # below, epsilon is in the hundreds for a single step
NOISE_TOLERANCE = 1e-3  # of calibrated noise, upwards; each halving of the interval takes a second
MOST_HALVINGS = 30
NOISE_DIGITS = 4  # to which calibrated noise is rounded up

_Cost: TypeAlias = Callable[[Sequence[NoisySteps], float], float]
_Kinds: TypeAlias = tuple[tuple[float, float, int], ...]
"""(sampling rate, noise multiplier, steps), each pair of the first two once."""


def epsilon_of(steps: Sequence[NoisySteps], delta: float) -> float:
    """Return the smallest epsilon, at `delta`, that is known to hold for all steps together.

    Args:
        steps: whatever was done to the same data, in any order.
        delta: between 0 and 1.

    Returns:
        0 if nothing was done, infinity where no bound is known.
    """
    kinds = _kinds(steps)
    return _epsilon(kinds, delta) if kinds else 0.0


def within(steps: Sequence[NoisySteps], delta: float, epsilon: float) -> bool:
    """Return whether all steps together cost at most `epsilon` at `delta`.

    The same answer as `epsilon_of` would give, without the slow bound where the fast one tells.
    """
    return rdp_epsilon(steps, delta) <= epsilon or epsilon_of(steps, delta) <= epsilon


def rdp_epsilon(steps: Sequence[NoisySteps], delta: float) -> float:
    """Return the bound by Renyi differential privacy; as `epsilon_of`."""
    kinds = _kinds(steps)
    return _rdp_epsilon(kinds, delta) if kinds else 0.0


def prv_epsilon(steps: Sequence[NoisySteps], delta: float) -> float:
    """Return the bound by numerical composition; as `epsilon_of`.

    Returns:
        Infinity, and the reason in the log, where rounding errors or memory do not let it be
        computed.
    """
    kinds = _kinds(steps)
    return _prv(kinds, delta) if kinds else 0.0


def noise_for(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    before: Sequence[NoisySteps] = (),
) -> float:
    """Return the least noise multiplier with which steps cost at most `epsilon`, rounded up.

    Args:
        epsilon: what everything together may cost.
        delta: between 0 and 1.
        sampling_rate: of every step.
        steps: how many, at least 1.
        before: what was done to the same data already.

    Raises:
        ConfigError: when no noise is enough.
    """
    if before and not within(before, delta, epsilon):
        raise ConfigError(
            f"epsilon {epsilon:g} at delta {delta:g}: expected a target above what was spent, "
            f"{epsilon_of(before, delta):.4g}"
        )

    def excess_of(bound: _Cost) -> Callable[[float], float]:
        def excess(noise: float) -> float:
            wanted = NoisySteps(sampling_rate=sampling_rate, noise_multiplier=noise, steps=steps)
            found = bound((*before, wanted), delta)
            return math.log(found / epsilon) if found > 0 else -math.inf

        return excess

    start = sampling_rate * math.sqrt(2 * steps * math.log(1.25 / delta)) / epsilon
    rough = _least(excess_of(rdp_epsilon), min(max(start, 0.3), MOST_NOISE / 2))
    noise = _least(excess_of(epsilon_of), rough) if rough <= MOST_NOISE else rough
    if noise > MOST_NOISE:
        raise ConfigError(
            f"epsilon {epsilon:g} at delta {delta:g}: expected a target that {steps} steps with "
            f"sampling rate {sampling_rate:g} can keep, found none with a noise multiplier up to "
            f"{MOST_NOISE:g}"
        )
    unit = 10.0**-NOISE_DIGITS
    rounded = round(math.ceil(noise / unit) * unit, NOISE_DIGITS)
    while excess_of(epsilon_of)(rounded) > 0:  # what is rounded is what is charged
        rounded = round(rounded + unit, NOISE_DIGITS)
    return rounded


def _least(excess: Callable[[float], float], start: float) -> float:
    """Return the least noise that is enough, a little above; more than `MOST_NOISE` for none.

    Args:
        excess: falls with the noise; above 0 where there is too little.
        start: where it is looked for first.
    """
    low, high = _bracket(excess, start)
    for _ in range(MOST_HALVINGS):
        if high <= low * (1 + NOISE_TOLERANCE) or high > MOST_NOISE:
            break
        above, below = excess(low), excess(high)
        share = above / (above - below) if math.isfinite(above - below) else 0.5
        root = low * (high / low) ** min(max(share, 0.02), 0.98)
        for middle in (root * (1 + NOISE_TOLERANCE / 3), root / (1 + NOISE_TOLERANCE / 3)):
            if low < middle < high:
                low, high = (low, middle) if excess(middle) <= 0 else (middle, high)
    return high


def _bracket(excess: Callable[[float], float], start: float) -> tuple[float, float]:
    """Return noise that is too little, or next to none, and noise that is enough or too much."""
    low = high = start
    if excess(start) <= 0:
        while excess(low) <= 0 and low > LEAST_NOISE:
            low, high = low / 1.3, low
        return low, high
    while excess(high) > 0 and high <= MOST_NOISE:
        low, high = high, high * 1.3
    return low, high


def _kinds(steps: Sequence[NoisySteps]) -> _Kinds:
    counts: Counter[tuple[float, float]] = Counter()
    for item in steps:
        counts[item.sampling_rate, item.noise_multiplier] += item.steps
    return tuple((rate, noise, n) for (rate, noise), n in sorted(counts.items()) if n)


@cache
def _epsilon(kinds: _Kinds, delta: float) -> float:
    return min(_rdp_epsilon(kinds, delta), _prv(kinds, delta))


def _rdp_epsilon(kinds: _Kinds, delta: float) -> float:
    from opacus.accountants.analysis.rdp import get_privacy_spent

    total = sum(n * np.array(_rdp(rate, noise)) for rate, noise, n in kinds)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # that another order may be tighter; the bound holds
        epsilon, _ = get_privacy_spent(orders=ORDERS, rdp=total, delta=delta)
    return _bound(float(epsilon))


@cache
def _rdp(rate: float, noise: float) -> tuple[float, ...]:
    """Return the cost of one step at every order; infinity where it cannot be computed."""
    return tuple(_rdp_at(rate, noise, order) for order in ORDERS)


def _rdp_at(rate: float, noise: float, order: float) -> float:
    from opacus.accountants.analysis.rdp import compute_rdp

    if rate < 1 and noise < LEAST_NOISE:  # opacus' series may never end
        return math.inf
    with np.errstate(all="ignore"):
        try:
            found = float(compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=order))
        except (ArithmeticError, ValueError):  # of numbers beyond a float's range
            return math.inf
    return found if found >= 0 else math.inf  # also for NaN


@cache
def _prv(kinds: _Kinds, delta: float) -> float:
    log, error = logging.getLogger("consilium.privacy"), delta * DELTA_ERROR
    half, mesh = _half_span(kinds, error), _mesh(kinds, error)
    if half / mesh * len(kinds) > MOST_POINTS / 2:
        log.info("numerical composition: expected at most %d points", MOST_POINTS)
        return math.inf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return _bound(_composed(kinds, delta, half, mesh))
        except (ArithmeticError, IndexError, MemoryError, RuntimeError, ValueError) as reason:
            log.info("numerical composition: %s", reason)
            return math.inf


def _composed(kinds: _Kinds, delta: float, half: float, mesh: float) -> float:
    """Return the upper end of the interval for epsilon, as opacus' own accountant does."""
    from opacus.accountants.analysis.prv import (
        Domain,
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        compose_heterogeneous,
        discretize,
    )

    domain = Domain.create_aligned(-half, half, mesh)
    losses = [
        TruncatedPrivacyRandomVariable(
            PoissonSubsampledGaussianPRV(rate, noise), domain.t_min, domain.t_max
        )
        for rate, noise, _ in kinds
    ]
    total = compose_heterogeneous(
        [discretize(loss, domain) for loss in losses], [n for _, _, n in kinds]
    )
    _, _, upper = total.compute_epsilon(delta, delta * DELTA_ERROR, EPSILON_ERROR)
    return float(upper)


def _half_span(kinds: _Kinds, delta_error: float) -> float:
    """Return how far the privacy loss is looked at (Gopi et al. 2021, remark 5.6).

    As opacus computes it, but from orders that are computed once.
    """
    n_steps = sum(n for _, _, n in kinds)
    single = (_rdp_epsilon(((q, z, 1),), delta_error / (8 * n_steps)) for q, z, _ in kinds)
    return max(_rdp_epsilon(kinds, delta_error / 4), *single, EPSILON_ERROR) + 3


def _mesh(kinds: _Kinds, delta_error: float) -> float:
    """Return how finely the privacy loss is looked at (Gopi et al. 2021, theorem 5.5)."""
    n_steps = sum(n for _, _, n in kinds)
    return EPSILON_ERROR / math.sqrt(n_steps * math.log(12 / delta_error) / 2)


def _bound(epsilon: float) -> float:
    """Return a computed bound; infinity for what is no number, and never less than 0."""
    return math.inf if math.isnan(epsilon) else max(0.0, epsilon)
