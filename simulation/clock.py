"""Simulated time: how long a federation of real institutions would take, by the FeTS challenge.

Every site is given the hardware of one real institution and the network of another, as their means
and standard deviations were measured; every round draws from them. Time passes only when somebody
waits, so deadlines, stragglers and late updates happen as they would, in no time.

Source: FeTS Challenge 2022, task 1 (Pati et al., arXiv 2105.05874; ``fets-ai/Challenge``). The
score of the challenge is in `server.convergence`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, MinLen

from common.codec import record
from common.random import step_rng

SHORTEST_S = 1.0  # FeTS Challenge 2022: every drawn time is floored at one second

Spread = tuple[float, Annotated[float, Ge(0)]]
"""Mean and standard deviation in seconds."""
Spreads = Annotated[tuple[Spread, ...], MinLen(1)]


@record
class RealWorldTimes:
    """Measured times; one entry per institution, as the challenge publishes them."""

    training_times: Spreads
    """Per case and epoch."""
    validation_times: Spreads
    """Per case; the entries belong to the institutions of `training_times`."""
    download_times: Spreads
    """Per model."""
    upload_times: Spreads
    """Per model; the entries belong to the institutions of `download_times`."""
    unit: str = ""
    source: str = ""


@dataclass(frozen=True)
class Speed:
    """How fast one site is."""

    training: Spread
    validation: Spread
    download: Spread
    upload: Spread


class SimulatedClock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        """Begin at 0."""
        self._now = 0.0
        self._round_began: float | None = None

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self._now

    def sleep(self, seconds: float, /) -> None:
        """Let time pass."""
        self._now += seconds

    def begin_round(self) -> None:
        """Remember when the first site was asked to train."""
        if self._round_began is None:
            self._round_began = self._now

    def end_round(self) -> float | None:
        """Return how long the round took in seconds; None if none began here, after a crash."""
        began, self._round_began = self._round_began, None
        return None if began is None else self._now - began


def speeds_of(times: RealWorldTimes, sites: Sequence[str], seed: int) -> dict[str, Speed]:
    """Give every site the hardware of one institution and the network of one; equal for a seed."""
    speeds = {}
    for site in sites:
        rng = step_rng(seed, site, 0, 0, "institution")
        hardware = int(rng.integers(len(times.training_times)))
        network = int(rng.integers(len(times.download_times)))
        speeds[site] = Speed(
            training=times.training_times[hardware],
            validation=times.validation_times[hardware],
            download=times.download_times[network],
            upload=times.upload_times[network],
        )
    return speeds


def training_seconds(
    speed: Speed, n_trained: float, n_validated: int, seed: int, site: str, round_: int
) -> float:
    """Draw how long a site takes for a round, from question to answer.

    Args:
        speed: of the site.
        n_trained: cases that it trains with, times epochs; a patch counts as a case.
        n_validated: its validation cases, tested before and after training.
        seed: of the run.
        site: its name.
        round_: from 1.
    """
    rng = step_rng(seed, site, round_, 0, "seconds")

    def drawn(spread: Spread) -> float:
        return max(SHORTEST_S, float(rng.normal(*spread)))

    download, before = drawn(speed.download), drawn(speed.validation) * n_validated
    training, after = drawn(speed.training) * n_trained, drawn(speed.validation) * n_validated
    return download + before + training + after + drawn(speed.upload)
