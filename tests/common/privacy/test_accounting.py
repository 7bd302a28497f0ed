"""Epsilon against values that an independent library computed.

The literals are those of dp-accounting 0.6.0 (Google), made by::

    from dp_accounting import dp_event as e, pld, rdp

    def event(rate, noise, steps):
        gaussian = e.GaussianDpEvent(noise)
        step = gaussian if rate == 1 else e.PoissonSampledDpEvent(rate, gaussian)
        return e.SelfComposedDpEvent(step, steps)

    def epsilon(accountant, kinds, delta):
        accountant.compose(e.ComposedDpEvent([event(*kind) for kind in kinds]))
        return accountant.get_epsilon(delta)

    epsilon(rdp.RdpAccountant(), kinds, delta)
    epsilon(pld.PLDAccountant(value_discretization_interval=1e-5), kinds, delta)

The second one's privacy loss distributions are exact up to 1e-5 per step: the true value. At
fractional orders dp-accounting takes a little more than the Renyi divergence, opacus exactly that
(compared with quadrature at order 2.5 of rate 0.25, noise 3: 3.70009 for 400 steps).
"""

import math
import warnings

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from common.errors import ConfigError
from common.privacy.accounting import (
    ORDERS,
    epsilon_of,
    noise_for,
    prv_epsilon,
    rdp_epsilon,
    within,
)
from common.privacy.mechanism import NoisySteps

SETTINGS = [  # (sampling rate, noise multiplier, steps)..., delta, RDP, true value
    ([(0.01, 4.0, 10000)], 1e-5, 1.035490, 0.946868),  # Abadi et al. 2016, figure 2
    ([(0.01, 1.1, 1000)], 1e-5, 1.711770, 1.515362),
    ([(256 / 60000, 1.1, 14062)], 1e-5, 2.596556, 2.381598),  # MNIST, 60 epochs
    ([(0.1, 1.0, 100)], 1e-3, 5.655053, 4.784350),
    ([(0.1, 2.0, 4000)], 1e-3, 16.866374, 15.331268),
    ([(0.25, 3.0, 400)], 1e-2, 5.838531, 4.830812),
    ([(0.05, 0.6, 50)], 1e-4, 8.789030, 7.223441),
    ([(1.0, 10.0, 20)], 1e-3, 1.356228, 1.183266),
    ([(1.0, 1.0, 1)], 1e-5, 4.728507, 4.377178),
    ([(0.5, 8.0, 200)], 1e-3, 3.089404, 2.718154),
    ([(0.1, 1.0, 50), (0.2, 2.0, 100)], 1e-3, 5.862848, 5.067384),
    ([(0.02, 0.8, 300), (0.05, 1.5, 200), (1.0, 20.0, 5)], 1e-4, 4.315664, 3.686780),
]
SAME_ORDER = (0, 4, 7, 10)  # where the best order is one that both libraries try
PARTS = 1e-3  # of epsilon: what 1e-5 per step may add up to


def steps_of(*kinds: tuple[float, float, int]) -> list[NoisySteps]:
    return [
        NoisySteps(sampling_rate=rate, noise_multiplier=noise, steps=n) for rate, noise, n in kinds
    ]


@pytest.mark.parametrize(("kinds", "delta", "rdp", "true"), SETTINGS)
def test_epsilon_is_an_upper_bound_and_a_tight_one(kinds, delta, rdp, true):
    found = epsilon_of(steps_of(*kinds), delta)
    assert true * (1 - PARTS) <= found <= true + 0.012
    assert found <= rdp


@pytest.mark.parametrize("number", SAME_ORDER)
def test_the_same_accountant_of_another_library_gives_the_same(number):
    kinds, delta, rdp, _ = SETTINGS[number]
    assert rdp_epsilon(steps_of(*kinds), delta) == pytest.approx(rdp, abs=1e-6)


@pytest.mark.parametrize("number", [1, 3, 5, 10])
def test_the_accountants_of_opacus_give_the_same(number):
    kinds, delta, _, _ = SETTINGS[number]
    history = [(noise, rate, n) for rate, noise, n in kinds]
    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history, rdp.history = list(history), list(history)
    assert prv_epsilon(steps_of(*kinds), delta) == pytest.approx(prv.get_epsilon(delta), abs=1e-6)
    expected = rdp.get_epsilon(delta, alphas=list(ORDERS))
    assert rdp_epsilon(steps_of(*kinds), delta) == pytest.approx(expected, abs=1e-6)


def test_the_moments_accountant_of_2016_said_a_little_more():
    # Abadi et al. 2016, section 3.2: q = 0.01, sigma = 4, 10,000 steps, delta 1e-5: epsilon 1.26
    assert epsilon_of(steps_of((0.01, 4.0, 10000)), 1e-5) < rdp_epsilon(
        steps_of((0.01, 4.0, 10000)), 1e-5
    )
    assert 0.9 < rdp_epsilon(steps_of((0.01, 4.0, 10000)), 1e-5) < 1.26


def test_rounds_cost_what_all_their_steps_cost_at_once():
    rounds = steps_of(*[(0.1, 1.5, 25)] * 20)
    assert epsilon_of(rounds, 1e-3) == epsilon_of(steps_of((0.1, 1.5, 500)), 1e-3)
    mixed = steps_of((0.1, 1.5, 20), (0.2, 2.0, 10), (0.1, 1.5, 5))
    assert epsilon_of(mixed, 1e-3) == epsilon_of(steps_of((0.2, 2.0, 10), (0.1, 1.5, 25)), 1e-3)


def test_nothing_done_costs_nothing():
    assert epsilon_of([], 1e-5) == 0
    assert epsilon_of(steps_of((0.1, 1.0, 0)), 1e-5) == 0
    assert rdp_epsilon([], 1e-5) == prv_epsilon([], 1e-5) == 0


@pytest.mark.parametrize(
    ("rate", "noise", "n", "delta"),
    [(0.02, 0.7, 200, 1e-5), (0.3, 4.0, 100, 1e-3), (0.9, 15.0, 30, 1e-2)],
)
def test_epsilon_grows_with_steps_rate_and_certainty_and_falls_with_noise(rate, noise, n, delta):
    slack = 1e-3  # the interval's ends move with the mesh
    here = epsilon_of(steps_of((rate, noise, n)), delta)
    assert epsilon_of(steps_of((rate, noise, 2 * n)), delta) >= here - slack
    assert epsilon_of(steps_of((min(1.0, 1.1 * rate), noise, n)), delta) >= here - slack
    assert epsilon_of(steps_of((rate, 1.1 * noise, n)), delta) <= here + slack
    assert epsilon_of(steps_of((rate, noise, n)), delta / 10) >= here - slack


def test_what_is_too_large_to_compose_numerically_still_has_a_bound():
    many = steps_of((0.5, 1.0, 1_000_000))
    assert prv_epsilon(many, 1e-5) == math.inf
    assert 1e4 < epsilon_of(many, 1e-5) < 1e6
    assert epsilon_of(many, 1e-5) == rdp_epsilon(many, 1e-5)


def test_next_to_no_noise_costs_next_to_infinity():
    assert epsilon_of(steps_of((1.0, 1e-3, 1)), 1e-5) > 1e5
    assert epsilon_of(steps_of((0.5, 1e-160, 1)), 1e-5) == math.inf


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epsilon_of(steps_of((1.0, 300.0, 1)), 1e-2)
        epsilon_of(steps_of((0.001, 50.0, 3)), 1e-6)


@pytest.mark.parametrize(
    ("epsilon", "delta", "rate", "n", "before"),
    [
        (8.0, 1e-3, 0.1, 400, ()),
        (1.0, 1e-2, 0.25, 40, ()),
        (4.0, 1e-3, 0.1, 100, ((0.1, 2.0, 50),)),
        (100.0, 1e-2, 1.0, 4, ()),
    ],
)
def test_calibrated_noise_keeps_the_target_and_little_less_would_not(
    epsilon, delta, rate, n, before
):
    noise = noise_for(epsilon, delta, rate, n, steps_of(*before))
    assert noise == round(noise, 4)
    assert within(steps_of(*before, (rate, noise, n)), delta, epsilon)
    assert not within(steps_of(*before, (rate, 0.997 * noise, n)), delta, epsilon)


def test_a_target_that_no_noise_keeps_is_a_mistake():
    spent = steps_of((0.1, 1.0, 100))  # 4.79
    with pytest.raises(
        ConfigError,
        match=r"epsilon 4 at delta 0.001: expected a target above what was spent, 4.795",
    ):
        noise_for(4.0, 1e-3, 0.1, 10, spent)
    with pytest.raises(ConfigError, match="found none with a noise multiplier up to 10000"):
        noise_for(0.01, 1e-6, 1.0, 10_000_000)
