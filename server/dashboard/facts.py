"""What a run's alarms and its line in the table follow from: small, and kept when the rest is not.

Nothing here depends on the time of day; `alarms.py` and `standing.py` are given that.
"""

from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from server.dashboard.cells import (
    DELAY,
    DOWNLOAD,
    FINISHED_AT,
    LOSS,
    ROUND_S,
    SUM_LOSS,
    UPLOAD,
    Cells,
)
from server.dashboard.kept import kept_of
from server.dashboard.means import mean_over, median_of
from server.dashboard.members import Member
from server.dashboard.method_rounds import Curve, Values
from server.dashboard.run_data import RunData
from server.dashboard.run_settings import RunSettings
from server.dashboard.trends import Trend, falling_dice, rising_loss
from server.dashboard.views import BestDice
from server.events import SitePrivacySpent

RECENT = 20  # rounds that say what is usual now


@dataclass(frozen=True)
class SiteFacts:
    """One site."""

    site: str
    member: Member
    """A copy as of then."""
    answered: bool | None
    """Whether its answer to the round at hand was good; None before it came."""
    usual_s: float | None
    """From a round's beginning to its answer, as a rule; None before there was any answer."""


@dataclass(frozen=True)
class Facts:
    """One run, as its log stands."""

    n_events: int
    n_unreadable: int
    first_unreadable: int | None
    """Number of the line."""
    task: str
    methods: tuple[str, ...]
    settings: RunSettings
    first: datetime | None
    last: datetime | None
    began: datetime | None
    """The round at hand."""
    method: str
    """Of the last event of a round; empty before there is one."""
    ended: tuple[tuple[str, int], ...]
    """The last finished round by method."""
    round_s: float | None
    """Median of the recent rounds of `method`, of all methods before its first."""
    longest_gap_s: float
    has_plan: bool
    is_testing: bool
    is_finished: bool
    sites: tuple[SiteFacts, ...]
    """In name order."""
    best: BestDice | None
    site_epsilon: float | None
    upload_bytes: int
    download_bytes: int
    loss: Trend | None
    dice: Trend | None
    lost: tuple[int, str] | None
    """Round and reason of the last sum, if it was lost."""
    times: dict[str, datetime]
    """Since when `loss`, `dice` and `lost` are so."""

    @property
    def at_hand(self) -> tuple[str, int]:
        """The method and the round at hand, or those that come next."""
        method = self.method or (self.methods[0] if self.methods else "")
        round_ = dict(self.ended).get(method, 0) + 1
        n_rounds = self.settings.n_rounds
        if n_rounds is not None and round_ > n_rounds and method in self.methods[:-1]:
            return self.methods[self.methods.index(method) + 1], 1
        return method, round_

    @property
    def asks_all(self) -> bool:
        """Whether every training site is asked in the round at hand."""
        return self.settings.asks_all(self.at_hand[0])

    @property
    def has_rounds(self) -> bool:
        """Whether the rounds have begun."""
        return self.has_plan or bool(self.ended)


def facts_of(data: RunData, settings: RunSettings) -> Facts:
    """Return the facts of a run."""
    course, started = data.course, data.course.started
    method = course.method or (started.methods[0] if started and started.methods else "")
    cells = data.cells.get(method)
    loss, dice = _trends(cells, _n_complete(data, method)) if cells else (None, None)
    since = {"loss": loss, "dice": dice}
    times = {
        name: _finished_at(cells, trend.since_round)
        for name, trend in since.items()
        if trend is not None and cells is not None
    }
    if course.lost_at is not None:
        times["lost"] = course.lost_at
    uploaded, downloaded = _bytes(data)
    return Facts(
        n_events=len(data.index) - data.n_unreadable,
        n_unreadable=data.n_unreadable,
        first_unreadable=data.unreadable[0].number if data.unreadable else None,
        task=started.task if started else "",
        methods=started.methods if started else settings.methods,
        settings=settings,
        first=course.first,
        last=course.last,
        began=course.began,
        method=course.method,
        ended=tuple(course.ended.items()),
        round_s=_round_s(data, method),
        longest_gap_s=course.longest_gap_s,
        has_plan=course.plan_made is not None,
        is_testing=course.is_testing,
        is_finished=course.finished is not None,
        sites=tuple(_site_facts(data, cells, site) for site in sorted(data.members)),
        best=_best(data),
        site_epsilon=_site_epsilon(data),
        upload_bytes=uploaded,
        download_bytes=downloaded,
        loss=loss,
        dice=dice,
        lost=(course.lost.round, course.lost.reason) if course.lost else None,
        times=times,
    )


def _n_complete(data: RunData, method: str) -> int:
    """Return how many rows of a method hold all that their rounds will tell of Dice.

    The Dice of a round comes with the answers of the next one; that of the last round when
    another method, or testing, has begun.
    """
    course, n = data.course, data.course.ended.get(method, 0)
    is_over = course.is_testing or course.finished is not None or method != course.method
    return n + 1 if is_over else n


def _trends(cells: Cells, n_complete: int) -> tuple[Trend | None, Trend | None]:
    ends = cells.ends[: cells.n_rounds]
    finished = np.flatnonzero(~np.isnan(ends[:, ROUND_S]))
    of_sites = mean_over(cells.answers[finished, :, LOSS], axis=1)
    losses = np.where(np.isnan(ends[finished, SUM_LOSS]), of_sites, ends[finished, SUM_LOSS])
    known = ~np.isnan(losses)
    rounds = np.arange(1, min(n_complete, cells.n_rounds))
    dice = _mean_over_regions(cells)[rounds]
    some = ~np.isnan(dice).all(axis=1)
    loss = rising_loss(Curve(finished[known], losses[known]))
    return loss, falling_dice(dice[some], rounds[some])


def _mean_over_regions(cells: Cells) -> Values:
    """Return (round, site) and, in a last column, the Dice of masked sums."""
    n, regions = cells.n_rounds, len(cells.regions)
    by_site = mean_over(cells.dice[:n, :, :regions], axis=2)
    of_sum = mean_over(cells.sum_dice[:n, :regions], axis=1)
    return np.concatenate([by_site, of_sum[:, None]], axis=1)


def _best(data: RunData) -> BestDice | None:
    """Return the best round of all methods; that of a method that is over is found once."""
    found = []
    for method, cells in data.cells.items():
        n = min(_n_complete(data, method), cells.n_rounds)
        if method not in data.best or data.best[method][0] != n:
            data.best[method] = n, _best_of(method, cells, n)
        best = data.best[method][1]
        if best is not None:
            found.append(best)
    return max(found, key=lambda best: best.dice, default=None)


def _best_of(method: str, cells: Cells, n: int) -> BestDice | None:
    if n < 2:
        return None
    mean = mean_over(_mean_over_regions(cells)[1:n], axis=1)
    if np.isnan(mean).all():
        return None
    row = int(np.nanargmax(mean))
    return BestDice(float(mean[row]), method, row + 1)


def _round_s(data: RunData, method: str) -> float | None:
    own = data.cells.get(method)
    for cells in (own, *data.cells.values()):
        if cells is None:
            continue
        seconds = cells.ends[: cells.n_rounds, ROUND_S]
        known = seconds[~np.isnan(seconds)]
        if known.size:
            return median_of(known[-RECENT:])
    return None


def _site_facts(data: RunData, cells: Cells | None, site: str) -> SiteFacts:
    usual = None
    if cells is not None:
        delays = cells.answers[max(0, cells.n_rounds - RECENT) : cells.n_rounds, :, DELAY]
        column = cells.sites.get(site)
        own = median_of(delays[:, column]) if column is not None else None
        usual = own if own is not None else median_of(delays)
    return SiteFacts(site, copy(data.members[site]), data.course.answered.get(site), usual)


def _bytes(data: RunData) -> tuple[int, int]:
    up = down = 0.0
    for cells in data.cells.values():
        answers = cells.answers[: cells.n_rounds]
        up += float(np.nansum(answers[..., UPLOAD]))
        down += float(np.nansum(answers[..., DOWNLOAD]))
    return int(up), int(down)


def _site_epsilon(data: RunData) -> float | None:
    spent = (event.epsilon for _, event in kept_of(data.kept, SitePrivacySpent))
    return max(spent, default=None)


def _finished_at(cells: Cells, round_: int) -> datetime:
    seconds = cells.ends[round_, FINISHED_AT]
    return datetime.fromtimestamp(0.0 if np.isnan(seconds) else float(seconds), UTC)
