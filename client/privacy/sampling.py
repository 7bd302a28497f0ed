"""Who takes part in a step: every patient with the same probability, independently of all others.

This is Poisson sampling, for which the accounting holds; batches of a fixed size drawn from a
shuffled list are something else. Nobody may be able to guess a draw, so the randomness is the
operating system's. Nothing is derived from the run's seed, which the coordinator knows.

Source: Abadi et al. 2016, Deep learning with differential privacy; Mironov et al. 2019, Renyi
differential privacy of the sampled Gaussian mechanism.
"""

import random

Draw = tuple[int, ...]
"""Indices of the patients of one step, ascending; may be empty."""


def poisson_draws(
    n_patients: int, rate: float, n_steps: int, source: random.Random | None = None
) -> list[Draw]:
    """Draw the patients of every step.

    Args:
        n_patients: of the site, for training.
        rate: probability of every patient in every step, in (0, 1].
        n_steps: how many draws.
        source: only for tests; the operating system's generator without it.
    """
    uniform = (source or random.SystemRandom()).random  # [0, 1) in steps of 2**-53
    return [tuple(i for i in range(n_patients) if uniform() < rate) for _ in range(n_steps)]
