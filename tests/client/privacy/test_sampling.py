"""Poisson sampling: independent draws at the stated rate, different every time."""

import random

from client.privacy.sampling import poisson_draws


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a test must draw the same every time


def test_every_patient_is_drawn_at_the_rate() -> None:
    draws = poisson_draws(50, 0.2, 2000, seeded(3))
    counts = [sum(patient in drawn for drawn in draws) for patient in range(50)]
    # 2000 draws at 0.2: 400, deviation 17.9; five deviations to either side
    assert all(310 < count < 490 for count in counts)


def test_how_many_are_drawn_varies_as_independent_draws_do() -> None:
    sizes = [len(drawn) for drawn in poisson_draws(50, 0.2, 2000, seeded(4))]
    mean = sum(sizes) / 2000
    variance = sum((size - mean) ** 2 for size in sizes) / 2000
    # binomial: mean 10, variance 50 * 0.2 * 0.8 = 8
    assert abs(mean - 10) < 0.4
    assert abs(variance - 8) < 1.5


def test_two_patients_are_drawn_together_as_often_as_chance_has_it() -> None:
    draws = poisson_draws(2, 0.5, 4000, seeded(5))
    together = sum(drawn == (0, 1) for drawn in draws)
    # 4000 / 4 = 1000, deviation 27.4
    assert 860 < together < 1140


def test_a_draw_may_be_empty_and_a_rate_of_1_draws_everybody() -> None:
    assert () in poisson_draws(3, 0.1, 100, seeded(6))
    assert poisson_draws(3, 1.0, 2) == [(0, 1, 2), (0, 1, 2)]


def test_no_two_runs_draw_alike() -> None:
    # a chance of 2**-1000
    assert poisson_draws(100, 0.5, 10) != poisson_draws(100, 0.5, 10)
