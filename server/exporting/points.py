"""Numbers of a run by name and round, as plots show them; the README of this room lists the names.

What is told here follows from the log alone, in its order, so that an export that begins again
finds the same numbers with the same times.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean

from server.events import (
    Event,
    HeldOutScored,
    RoundFinished,
    RunFinished,
    SiteFailed,
    SiteMasked,
    SitePersonalised,
    SitePrivacySpent,
    SiteTrained,
    SiteValidated,
    SumOpened,
)
from server.log_lines import Timed
from server.plateau import mean_loss

WHOLE_RUN = ""
ALL_VALIDATED = RoundFinished | SitePersonalised | HeldOutScored | RunFinished
"""What comes only after every site's validation of the weights before."""


@dataclass(frozen=True)
class Point:
    """One number."""

    method: str
    """Or `WHOLE_RUN`."""
    name: str
    """Of letters, digits and `_-.: /`, which every program takes."""
    step: int
    """The round."""
    value: float
    time: datetime
    """Of the event that it follows from."""


@dataclass
class _Round:
    """What sites sent in a round so far; of a site that answered twice the last answer counts."""

    trained: dict[str, SiteTrained] = field(default_factory=dict)
    masked: dict[str, SiteMasked] = field(default_factory=dict)
    failed: dict[str, SiteFailed] = field(default_factory=dict)


class RoundPoints:
    """Turns events into points; keeps what the means of unfinished rounds need."""

    def __init__(self) -> None:
        """Begin before the first event of a run."""
        self._rounds: dict[tuple[str, int], _Round] = defaultdict(_Round)
        self._dice: dict[tuple[str, int], dict[str, Mapping[str, float]]] = defaultdict(dict)
        self.last_round: dict[str, int] = defaultdict(int)
        """Of every method, the last round that was finished."""

    def points_of(self, timed: Timed) -> list[Point]:
        """Return the points that follow from the next event, those of finished means first."""
        time, event = timed
        points = list(self._validated(timed))
        method = getattr(event, "method", WHOLE_RUN)
        for step, name, value in self._values(event):
            points.append(Point(method, name, step, float(value), time))
        return points

    def _values(self, event: Event) -> Iterator[tuple[int, str, float]]:
        """Yield (step, name, value) of an event, and remember what means need."""
        match event:
            case SiteTrained():
                self._rounds[event.method, event.round].trained[event.site] = event
                yield from _of_update(event)
            case SiteMasked():
                self._rounds[event.method, event.round].masked[event.site] = event
                yield from _of_exchange(event)
            case SiteFailed():
                self._rounds[event.method, event.round].failed[event.site] = event
            case SiteValidated():
                self._dice[event.method, event.round][event.site] = event.dice
                yield event.round, f"dice/site/{event.site}", fmean(event.dice.values())
                for region, value in event.dice.items():
                    name = f"dice/region/{safe(region)}/site/{event.site}"
                    yield event.round, name, value
            case RoundFinished():
                self.last_round[event.method] = event.round
                round_ = self._rounds.pop((event.method, event.round), _Round())
                yield from _of_round(event, round_)
            case SitePersonalised():
                step = self.last_round[event.method]
                yield step, f"personalised/shared/site/{event.site}", fmean(event.shared.values())
                yield step, f"personalised/own/site/{event.site}", fmean(event.own.values())
            case _:
                yield from _of_sum(event)

    def _validated(self, timed: Timed) -> Iterator[Point]:
        """Yield the mean Dice over sites of weights that no further site will say anything of."""
        time, event = timed
        for method, round_ in list(self._dice):
            if not isinstance(event, ALL_VALIDATED) and _method(event) in {method, None}:
                continue
            by_site = self._dice.pop((method, round_)).values()
            for name, value in _dice_means(list(by_site)):
                yield Point(method, name, round_, value, time)


def safe(name: str) -> str:
    """Return a region's name as a part of a point's name."""
    return re.sub(r"[^A-Za-z0-9_.: -]", "_", name)


def _method(event: Event) -> str | None:
    return getattr(event, "method", None)


def _of_update(event: SiteTrained) -> Iterator[tuple[int, str, float]]:
    where = f"site/{event.site}"
    if event.loss is not None:
        yield event.round, f"loss/{where}", event.loss
    yield event.round, f"update_norm/{where}", event.update_norm
    yield from _of_exchange(event)


def _of_exchange(event: SiteTrained | SiteMasked) -> Iterator[tuple[int, str, float]]:
    where, spent = f"site/{event.site}", getattr(event, "spent", None)
    if spent is not None:
        yield event.round, f"epsilon/{where}", spent.epsilon
        yield event.round, f"budget_used/{where}", spent.budget_used
    yield event.round, f"seconds/{where}", event.seconds
    yield event.round, f"upload_bytes/{where}", event.upload_bytes
    yield event.round, f"download_bytes/{where}", event.download_bytes


def _of_round(event: RoundFinished, round_: _Round) -> Iterator[tuple[int, str, float]]:
    sent: list[SiteTrained | SiteMasked] = [*round_.trained.values(), *round_.masked.values()]
    downloads = [one.download_bytes for one in (*sent, *round_.failed.values())]
    step = event.round
    if round_.trained and all(one.loss is not None for one in round_.trained.values()):
        yield step, "loss/mean", mean_loss(round_.trained)
    yield step, "seconds/round", event.seconds
    if event.simulated_s is not None:
        yield step, "seconds/round_simulated", event.simulated_s
    yield step, "upload_bytes/round", sum(one.upload_bytes for one in sent)
    yield step, "download_bytes/round", sum(downloads)
    yield step, "sites/accepted", event.n_sites
    yield step, "sites/failed", len(round_.failed.keys() - round_.trained.keys())


def _of_sum(event: Event) -> Iterator[tuple[int, str, float]]:
    if isinstance(event, SumOpened):
        if event.loss is not None:
            yield event.round, "loss/mean", event.loss
        yield event.round, "update_norm/mean_change", event.update_norm
        yield event.round, "seconds/opening", event.seconds
        for name, value in _dice_means([event.dice] if event.dice else []):
            yield event.round - 1, name, value  # of the weights as received
    if isinstance(event, SitePrivacySpent):
        yield event.round, "epsilon/site_level", event.epsilon


def _dice_means(by_site: list[Mapping[str, float]]) -> Iterator[tuple[str, float]]:
    """Yield the mean over sites, of all regions and of each."""
    if not by_site:
        return
    yield "dice/mean", fmean(fmean(dice.values()) for dice in by_site)
    for region in dict.fromkeys(region for dice in by_site for region in dice):
        values = [dice[region] for dice in by_site if region in dice]
        yield f"dice/region/{safe(region)}", fmean(values)
