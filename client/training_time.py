"""How much this site trained today: epochs and hours, counted so that a crash hides nothing.

The epochs of a round are written down before its first step. Its time is written down ahead, in
slices: what the file says is at least what was used, whenever the power goes, unless it goes in a
step that takes longer than any before it, twice. A crash costs up to a slice too much; at the end
of the round the file is exact again. A day is a calendar day here.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Protocol

from annotated_types import Ge

from client.site import SiteConfig
from common.codec import read_json, record, write_json
from common.errors import PolicyError

FIRST_SLICE_S = 600.0  # a network may be compiled in the first step, for minutes
SLICE_S = 60.0  # after the first step; four times the longest step where that is more
HOUR_S = 3600.0


class Clock(Protocol):
    """What is needed of the module `time`; tests bring their own."""

    def time(self) -> float:
        """Return seconds since 1970."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


@record
class Spent:
    """What was used of a day. Stays at the site."""

    day: str
    epochs: Annotated[float, Ge(0)] = 0.0
    seconds: Annotated[float, Ge(0)] = 0.0
    """With the slice that is written ahead."""


def spent_today(site: SiteConfig, clock: Clock = time) -> Spent:
    """Return what was used today.

    Raises:
        ConfigError: when the file is damaged.
    """
    today = date.fromtimestamp(clock.time()).isoformat()
    kept = read_json(Spent, _file(site)) if _file(site).exists() else None
    return kept if kept is not None and kept.day == today else Spent(day=today)


def require_time_left(site: SiteConfig, n_epochs: float, clock: Clock = time) -> None:
    """Demand that today's budget has room for so many epochs, and for any time at all.

    Raises:
        PolicyError: with the rule "epochs" or "hours".
    """
    epochs, hours = site.policy.max_epochs_per_day, site.policy.max_hours_per_day
    if epochs is None and hours is None:
        return
    spent = spent_today(site, clock)
    if epochs is not None and spent.epochs + n_epochs > epochs * (1 + 1e-9):  # sums are rounded
        raise PolicyError(
            f"policy.max_epochs_per_day: expected at most {epochs:g}, found {spent.epochs:g} "
            f"today and {n_epochs:g} asked for",
            "epochs",
        )
    if hours is not None and spent.seconds >= hours * HOUR_S:
        raise PolicyError(_no_time_left(hours, spent.seconds), "hours")


@contextmanager
def counted(site: SiteConfig, n_epochs: float, clock: Clock = time) -> Iterator[Callable[[], None]]:
    """Count epochs and time of what is trained inside; give what to call before every step.

    Raises:
        PolicyError: before the first step as in `require_time_left`, later with the rule "hours"
            when the day's time is over.
    """
    policy = site.policy
    if policy.max_epochs_per_day is None and policy.max_hours_per_day is None:
        yield lambda: None
        return
    require_time_left(site, n_epochs, clock)
    meter = _Meter(site, n_epochs, clock)
    try:
        yield meter.step
    finally:
        meter.stop()


class _Meter:
    """Time that runs, and what of it is written down."""

    def __init__(self, site: SiteConfig, n_epochs: float, clock: Clock) -> None:
        self._site, self._clock = site, clock
        before = spent_today(site, clock)
        self._day, self._epochs = before.day, before.epochs + n_epochs
        self._seconds, self._longest = before.seconds, 0.0
        self._last = clock.monotonic()
        self._write(FIRST_SLICE_S)

    def step(self) -> None:
        """Count the time since the last step; refuse to go on when there is none left."""
        self._longest = max(self._longest, self._count())
        hours = self._site.policy.max_hours_per_day
        if hours is not None and self._seconds >= hours * HOUR_S:
            raise PolicyError(_no_time_left(hours, self._seconds), "hours")
        ahead = max(SLICE_S, 4 * self._longest)
        if self._seconds + ahead / 2 > self._written:
            self._write(ahead)

    def stop(self) -> None:
        """Write down what was used in the end."""
        self._count()
        self._write(0.0)

    def _count(self) -> float:
        now, today = self._clock.monotonic(), date.fromtimestamp(self._clock.time()).isoformat()
        passed, self._last = now - self._last, now
        if today != self._day:
            self._day, self._epochs, self._seconds, self._written = today, 0.0, 0.0, 0.0
        self._seconds += passed
        return passed

    def _write(self, ahead_s: float) -> None:
        self._written = self._seconds + ahead_s
        spent = Spent(day=self._day, epochs=self._epochs, seconds=self._written)
        write_json(_file(self._site), spent)


def _no_time_left(hours: float, seconds: float) -> str:
    return (
        f"policy.max_hours_per_day: expected at most {hours:g}, found {seconds / HOUR_S:.2f} "
        "hours of training today"
    )


def _file(site: SiteConfig) -> Path:
    return site.state_folder / "trained-today.json"
