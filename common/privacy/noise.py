"""Normal noise from the operating system's secure generator.

Four normal numbers are added and halved: the sum's digits do not tell what a single one's would
(Holohan and Braghin 2021, Secure random sampling in differential privacy). It cannot be seeded.
"""

import os

import numpy as np
from numpy.typing import NDArray

ROWS = 4  # added; opacus' secure mode does the same
MOST_AT_ONCE = 2**18  # numbers; about 16 MiB on the way


def secure_normal(n: int, deviation: float) -> NDArray[np.float64]:
    """Return `n` independent normal numbers of mean 0."""
    found = np.empty(n)
    for start in range(0, n, MOST_AT_ONCE):
        part = found[start : start + MOST_AT_ONCE]
        part[:] = sum(_normal(part.size) for _ in range(ROWS)) / np.sqrt(ROWS)
    found *= deviation
    return found


def _normal(n: int) -> NDArray[np.float64]:
    """Return standard normal numbers (Box and Muller 1958)."""
    half = -(-n // 2)
    words = np.frombuffer(os.urandom(16 * half), dtype=np.uint64)
    uniform = (words >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    radius = np.sqrt(-2 * np.log1p(-uniform[:half]))
    angle = 2 * np.pi * uniform[half:]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:n]
