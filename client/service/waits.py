"""How long to wait before the next attempt: longer each time, never the same for two sites."""

from dataclasses import dataclass, field
from random import Random

FIRST_S, LONGEST_S = 1.0, 300.0
JITTER = 0.25  # of each wait, so that sites do not come back all at once


@dataclass
class Waits:
    """Doubling waits; a success begins them anew."""

    longest_s: float = LONGEST_S
    rng: Random = field(default_factory=Random)
    n_failures: int = 0

    def next_s(self) -> float:
        """Return how long to wait after one more failure, in seconds."""
        plain = min(FIRST_S * 2 ** min(self.n_failures, 30), self.longest_s)
        self.n_failures += 1
        return self._shaken(plain)

    def long_s(self) -> float:
        """Return the longest wait, for what only people can mend."""
        return self._shaken(self.longest_s)

    def begin_anew(self) -> None:
        """Forget the failures."""
        self.n_failures = 0

    def _shaken(self, plain_s: float) -> float:
        return plain_s * (1 - JITTER * self.rng.random())
