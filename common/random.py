"""One random generator per step, derived from what the step is, never from what ran before.

A run that is interrupted, resumed, or carried by another engine therefore draws the same numbers.
"""

import hashlib
import json

import numpy as np


def step_rng(seed: int, site: str, round_: int, step: int, purpose: str) -> np.random.Generator:
    """Return the generator of one training step; same arguments, same numbers on any machine.

    Args:
        seed: of the run.
        site: name of the site as the federation knows it.
        round_: number of the round.
        step: number of the step within the round.
        purpose: what is drawn, for example "patches"; different purposes never share numbers.
    """
    digest = hashlib.sha256(json.dumps([seed, site, round_, step, purpose]).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
