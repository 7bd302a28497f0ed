"""The rounds of one method as arrays: what every site did in each, what the weights were worth."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from server.dashboard.means import mean_over

Values = NDArray[np.float64]
"""NaN where nothing is known."""
Outcome = Literal["none", "trained", "masked", "failed", "ignored"]
OUTCOMES: tuple[Outcome, ...] = ("none", "trained", "masked", "failed", "ignored")
"""By the code in `MethodRounds.outcome`."""


@dataclass(frozen=True)
class Curve:
    """Values by round, ascending; rounds without a value are left out."""

    rounds: NDArray[np.int64]
    values: Values

    @property
    def last(self) -> float | None:
        """The value of the last round that has one."""
        return float(self.values[-1]) if len(self.values) else None


@dataclass(frozen=True)
class MethodRounds:
    """Arrays whose first axis is the round, from 0 (before the first) to the last that is known.

    A round that a resumed run repeated stands once, as it went the last time.
    """

    method: str
    sites: tuple[str, ...]
    """Second axis of the arrays by site."""
    regions: tuple[str, ...]
    """Last axis of the arrays of Dice."""
    dice: Values
    """(round, site, region): of the weights after the round on the site's validation cases."""
    loss: Values
    """(round, site): mean training loss; NaN where it is private or masked."""
    update_norm: Values
    """(round, site): L2 norm of the accepted updates."""
    training_s: Values
    """(round, site): seconds that the site trained, by its own clock."""
    upload_bytes: Values
    """(round, site)."""
    download_bytes: Values
    """(round, site): of the question, repetitions included."""
    outcome: NDArray[np.uint8]
    """(round, site): code of `OUTCOMES`."""
    n_sites: NDArray[np.int64]
    """(round,): whose updates counted; 0 for a round that is not finished."""
    round_s: Values
    """(round,): by the coordinator's clock; NaN for a round that is not finished."""
    simulated_s: Values
    """(round,): by a simulation's clock."""
    finished_at: Values
    """(round,): seconds since 1970, UTC."""
    sum_dice: Values
    """(round, region): mean over sites, where only the sum of the updates is seen."""
    sum_loss: Values
    """(round,): as above."""
    sum_norm: Values
    """(round,): L2 norm of the mean change, as above."""
    sum_open_s: Values
    """(round,): seconds that opening the sum took."""
    lost: tuple[tuple[int, str], ...]
    """Rounds whose sum was lost, and why."""

    def site_dice(self, site: str, region: str) -> Curve:
        """Return the validation Dice of a region on one site."""
        where = self.sites.index(site), self.regions.index(region)
        return _curve(self.dice[:, where[0], where[1]])

    def mean_dice(self, region: str | None = None) -> Curve:
        """Return the mean over sites of a region's Dice; without one, of the mean over regions."""
        if region is not None:
            return _curve(self.global_dice()[:, self.regions.index(region)])
        of_sites = mean_over(mean_over(self.dice, axis=2), axis=1)
        of_sum = mean_over(self.sum_dice, axis=1)
        return _curve(np.where(np.isnan(of_sum), of_sites, of_sum))

    def global_dice(self) -> Values:
        """Return (round, region): the mean over the sites that validated, or that of the sum."""
        return np.where(np.isnan(self.sum_dice), mean_over(self.dice, axis=1), self.sum_dice)

    def spread_dice(self, region: str) -> tuple[Curve, Curve]:
        """Return the lowest and the highest site's Dice of a region, for a band."""
        values = self.dice[:, :, self.regions.index(region)]
        some = ~np.isnan(values).all(axis=1)
        rounds = np.flatnonzero(some)
        low, high = np.nanmin(values[some], axis=1), np.nanmax(values[some], axis=1)
        return Curve(rounds, low), Curve(rounds, high)

    def site_loss(self, site: str) -> Curve:
        """Return the training loss of one site."""
        return _curve(self.loss[:, self.sites.index(site)])

    def mean_loss(self) -> Curve:
        """Return the mean over sites of the training loss, or that of the sum."""
        return _curve(
            np.where(np.isnan(self.sum_loss), mean_over(self.loss, axis=1), self.sum_loss)
        )

    def site_norm(self, site: str) -> Curve:
        """Return the norms of one site's accepted updates."""
        return _curve(self.update_norm[:, self.sites.index(site)])

    def site_seconds(self, site: str) -> Curve:
        """Return how long one site trained."""
        return _curve(self.training_s[:, self.sites.index(site)])

    def slowest(self, round_: int) -> tuple[str, float] | None:
        """Return the site that a round waited for longest, and how long it trained; or None."""
        seconds = self.training_s[round_]
        if np.isnan(seconds).all():
            return None
        place = int(np.nanargmax(seconds))
        return self.sites[place], float(seconds[place])

    def sites_with(self, outcome: Outcome, round_: int) -> tuple[str, ...]:
        """Return the sites with an outcome in a round."""
        found = np.flatnonzero(self.outcome[round_] == OUTCOMES.index(outcome))
        return tuple(self.sites[place] for place in found)

    def finished_time(self, round_: int, zone_of: datetime) -> datetime | None:
        """Return when a round finished, in the time zone of another time; None if it did not."""
        seconds = self.finished_at[round_]
        return None if np.isnan(seconds) else datetime.fromtimestamp(seconds, zone_of.tzinfo)


def _curve(values: Values) -> Curve:
    known = np.flatnonzero(~np.isnan(values))
    return Curve(known, values[known])
