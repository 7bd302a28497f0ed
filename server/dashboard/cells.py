"""One number per round and site, in arrays that grow: a thousand rounds of 60 sites take megabytes.

A cell holds what was said last, so a round that a resumed run repeats counts once.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import MessageError
from server.dashboard.method_rounds import OUTCOMES, MethodRounds, Values
from server.events import (
    ReplyIgnored,
    RoundFinished,
    SiteFailed,
    SiteMasked,
    SiteTrained,
    SiteValidated,
    SumLost,
    SumOpened,
)

MOST_ROUNDS = 100_000
MOST_SITES = 1000
MOST_REGIONS = 16
MOST_CELLS = 1_000_000  # rounds x sites of one method: 60 sites for 16,000 rounds, 100 MB
MOST_NAME_CHARACTERS = 200
MOST_VALUE = 1e100
MOST_COUNT = 2**53  # a float64 holds every whole number up to here
LOSS, NORM, SECONDS, UPLOAD, DOWNLOAD, DELAY, LATE = range(7)  # of the last axis of `answers`
ROUND_S, SIMULATED_S, FINISHED_AT, SUM_LOSS, SUM_NORM, SUM_OPEN_S = range(6)  # of `ends`
CODES = {name: code for code, name in enumerate(OUTCOMES)}


def _empty(*shape: int) -> Values:
    return np.full(shape, np.nan)


@dataclass
class Cells:
    """What is known of one method's rounds; the arrays are larger than what is used of them."""

    sites: dict[str, int] = field(default_factory=dict)
    """Place of every site."""
    regions: dict[str, int] = field(default_factory=dict)
    n_rounds: int = 0
    """Rounds that are known, round 0 counted."""
    answers: Values = field(default_factory=lambda: _empty(8, 4, 7))
    """(round, site, quantity)."""
    outcome: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((8, 4), np.uint8))
    dice: Values = field(default_factory=lambda: _empty(8, 4, 1))
    ends: Values = field(default_factory=lambda: _empty(8, 6))
    """(round, quantity)."""
    n_counted: NDArray[np.int64] = field(default_factory=lambda: np.zeros(8, np.int64))
    sum_dice: Values = field(default_factory=lambda: _empty(8, 1))
    lost: dict[int, str] = field(default_factory=dict)
    """Reason by round."""


def add_trained(cells: Cells, event: SiteTrained | SiteMasked, delay_s: float) -> None:
    """Add an accepted answer, and how long after the round's beginning it came."""
    check_bytes(event.upload_bytes, event.download_bytes)
    row, column = _place(cells, event.round, event.site)
    loss = norm = np.nan
    late = 0
    if isinstance(event, SiteTrained):
        norm, late = event.update_norm, event.late_rounds
        loss = np.nan if event.loss is None else event.loss
        check_values(norm, event.seconds, event.loss or 0.0)
    else:
        check_values(event.seconds)
    told = event.seconds, event.upload_bytes, event.download_bytes
    cells.answers[row, column] = (loss, norm, *told, delay_s, late)
    cells.outcome[row, column] = CODES["masked" if isinstance(event, SiteMasked) else "trained"]


def add_trouble(cells: Cells, event: SiteFailed | ReplyIgnored) -> None:
    """Add an answer that did not count.

    What a good one of the same round told stays: the site may have failed at validating since.
    """
    n_bytes = event.download_bytes if isinstance(event, SiteFailed) else 0
    check_bytes(n_bytes)
    row, column = _place(cells, event.round, event.site)
    if not isinstance(event, SiteFailed):
        if cells.outcome[row, column] == CODES["none"]:
            cells.outcome[row, column] = CODES["ignored"]
        return
    cells.outcome[row, column] = CODES["failed"]
    if np.isnan(cells.answers[row, column, DOWNLOAD]):
        cells.answers[row, column, DOWNLOAD] = n_bytes


def add_dice(cells: Cells, event: SiteValidated) -> None:
    """Add what the weights after a round are worth at a site."""
    check_values(*event.dice.values())
    row, column = _place(cells, event.round, event.site)
    columns = _regions(cells, event.dice)
    of_site = cells.dice[row, column]
    for region, value in event.dice.items():
        of_site[columns[region]] = value


def add_end(cells: Cells, event: RoundFinished, at_s: float) -> None:
    """Add the end of a round."""
    check_bytes(event.n_sites)
    check_values(event.seconds, event.simulated_s or 0.0)
    row = _row(cells, event.round)
    simulated = np.nan if event.simulated_s is None else event.simulated_s
    cells.ends[row, [ROUND_S, SIMULATED_S, FINISHED_AT]] = (event.seconds, simulated, at_s)
    cells.n_counted[row] = event.n_sites


def add_sum(cells: Cells, event: SumOpened) -> None:
    """Add the sum of a round's updates; its Dice is of the weights after the round before."""
    check_values(event.loss or 0.0, event.update_norm, event.seconds, *(event.dice or {}).values())
    row = _row(cells, event.round)
    loss = np.nan if event.loss is None else event.loss
    cells.ends[row, [SUM_LOSS, SUM_NORM, SUM_OPEN_S]] = (loss, event.update_norm, event.seconds)
    cells.lost.pop(event.round, None)
    if event.dice and event.round > 0:
        columns = _regions(cells, event.dice)
        for region, value in event.dice.items():
            cells.sum_dice[row - 1, columns[region]] = value


def add_lost(cells: Cells, event: SumLost) -> None:
    """Add that the sum of a round's updates was lost."""
    _row(cells, event.round)
    cells.lost[event.round] = event.reason


def snapshot(method: str, cells: Cells) -> MethodRounds:
    """Return copies of the arrays, cut to what is known, sites in the order of their names."""
    sites = tuple(sorted(cells.sites))
    n, m, columns = cells.n_rounds, len(cells.regions), [cells.sites[site] for site in sites]
    answers, ends = cells.answers[:n], cells.ends[:n]
    return MethodRounds(
        method=method,
        sites=sites,
        regions=tuple(cells.regions),
        dice=cells.dice[:n, :, :m][:, columns],
        loss=answers[:, columns, LOSS],
        update_norm=answers[:, columns, NORM],
        training_s=answers[:, columns, SECONDS],
        upload_bytes=answers[:, columns, UPLOAD],
        download_bytes=answers[:, columns, DOWNLOAD],
        outcome=cells.outcome[:n][:, columns],
        n_sites=cells.n_counted[:n].copy(),
        round_s=ends[:, ROUND_S].copy(),
        simulated_s=ends[:, SIMULATED_S].copy(),
        finished_at=ends[:, FINISHED_AT].copy(),
        sum_dice=cells.sum_dice[:n, :m].copy(),
        sum_loss=ends[:, SUM_LOSS].copy(),
        sum_norm=ends[:, SUM_NORM].copy(),
        sum_open_s=ends[:, SUM_OPEN_S].copy(),
        lost=tuple(sorted(cells.lost.items())),
    )


def n_bytes(cells: Cells) -> int:
    """Return how much memory the arrays take."""
    arrays = (cells.answers, cells.outcome, cells.dice, cells.ends, cells.n_counted, cells.sum_dice)
    return sum(array.nbytes for array in arrays)


def check_bytes(*counts: int) -> None:
    """Demand counts that a page can show.

    Raises:
        MessageError: when one is negative or absurd.
    """
    if min(counts) < 0 or max(counts) > MOST_COUNT:
        raise MessageError(f"a count: expected 0 to 2^53, found {max(counts, key=abs)}")


def check_values(*values: float) -> None:
    """Demand numbers whose sums are finite; those of a network are, as float32 has no larger ones.

    Raises:
        MessageError: for a larger one.
    """
    if values and not -MOST_VALUE < min(values) <= max(values) < MOST_VALUE:
        raise MessageError(f"a number: expected less than {MOST_VALUE:g}, found {values}")


def check_name(name: str) -> None:
    """Demand a name of a site or method that a page can show; a configuration's are shorter.

    Raises:
        MessageError: for a longer one.
    """
    if len(name) > MOST_NAME_CHARACTERS:
        raise MessageError(f"a name: expected at most {MOST_NAME_CHARACTERS} characters")


def _place(cells: Cells, round_: int, site: str) -> tuple[int, int]:
    """Return where a site's answer stands, with room for it."""
    column = cells.sites.get(site)
    if column is None:
        check_name(site)
        _check_room(max(cells.n_rounds, round_ + 1), len(cells.sites) + 1)
    row = _row(cells, round_)
    if column is None:
        column = cells.sites[site] = len(cells.sites)
        if column >= cells.answers.shape[1]:
            width = 2 * column
            cells.answers = _grown(cells.answers, 1, width)
            cells.outcome = _grown(cells.outcome, 1, width)
            cells.dice = _grown(cells.dice, 1, width)
    return row, column


def _row(cells: Cells, round_: int) -> int:
    if round_ >= cells.n_rounds or round_ < 0:
        _check_room(round_ + 1, len(cells.sites))
        if round_ >= len(cells.ends):
            _lengthen(cells, max(2 * len(cells.ends), round_ + 1))
        cells.n_rounds = round_ + 1
    return round_


def _check_room(n_rounds: int, n_sites: int) -> None:
    fits = 1 <= n_rounds <= MOST_ROUNDS and n_sites <= MOST_SITES
    if not fits or n_rounds * n_sites > MOST_CELLS:
        raise MessageError(
            f"expected at most {MOST_ROUNDS} rounds of {MOST_SITES} sites, {MOST_CELLS} of both "
            f"together; found round {n_rounds - 1} of {n_sites} sites"
        )


def _lengthen(cells: Cells, n_rounds: int) -> None:
    cells.answers = _grown(cells.answers, 0, n_rounds)
    cells.outcome = _grown(cells.outcome, 0, n_rounds)
    cells.dice = _grown(cells.dice, 0, n_rounds)
    cells.ends = _grown(cells.ends, 0, n_rounds)
    cells.n_counted = _grown(cells.n_counted, 0, n_rounds)
    cells.sum_dice = _grown(cells.sum_dice, 0, n_rounds)


def _regions(cells: Cells, dice: dict[str, float]) -> dict[str, int]:
    """Return the places of the regions, with room for new ones."""
    if not dice.keys() <= cells.regions.keys():
        new = [region for region in dice if region not in cells.regions]
        if len(cells.regions) + len(new) > MOST_REGIONS:
            raise MessageError(f"dice: expected at most {MOST_REGIONS} regions in a run")
        for region in new:
            check_name(region)
            cells.regions[region] = len(cells.regions)
        cells.dice = _grown(cells.dice, 2, len(cells.regions))
        cells.sum_dice = _grown(cells.sum_dice, 1, len(cells.regions))
    return cells.regions


def _grown(array: NDArray[Any], axis: int, size: int) -> NDArray[Any]:
    """Return an array that is longer along one axis, filled with nothing."""
    shape = list(array.shape)
    shape[axis] = size
    larger = np.full(shape, np.nan if array.dtype.kind == "f" else 0, array.dtype)
    larger[tuple(slice(n) for n in array.shape)] = array
    return larger
