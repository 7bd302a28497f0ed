"""Learning curves: Dice and loss by round, global and of chosen sites."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.figures import COLOURS
from server.dashboard.downsample import MOST_POINTS, downsampled
from server.dashboard.means import mean_over
from server.dashboard.method_rounds import Curve, MethodRounds
from server.dashboard.pages.chart import (
    Drawing,
    band_series,
    line_series,
    options,
)
from server.dashboard.pages.grid import Column, Row
from server.dashboard.pages.words import number_text
from server.reporting.report_data import method_label

Values = NDArray[np.float64]
EVERY_METHOD = "every method"
EVERY_REGION = "mean over regions"
FEW_SITES = 6  # hues that can be told apart: with more sites only chosen ones are drawn
BAND = "lowest to highest site"
MEAN = "mean over sites"


@dataclass(frozen=True)
class Choice:
    """What a reader wants to see."""

    method: str
    region: str = EVERY_REGION
    sites: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A curve with its name."""

    name: str
    values: Values
    """(round,), NaN where nothing is known."""


def first_choice(rounds: Mapping[str, MethodRounds]) -> Choice:
    """Return what is shown before anybody chooses: the last method, all of few sites."""
    known = [name for name, found in rounds.items() if len(found.n_sites) > 1]
    method = known[-1] if known else next(iter(rounds), EVERY_METHOD)
    sites = rounds[method].sites if method in rounds else ()
    return Choice(method, sites=sites if len(sites) <= FEW_SITES else ())


def dice_drawing(rounds: Mapping[str, MethodRounds], choice: Choice) -> Drawing:
    """Draw validation Dice: the mean over sites, the band of all sites, and chosen sites."""
    if choice.method == EVERY_METHOD:
        lines = [
            Line(method_label(name), _global_dice(found, choice.region))
            for name, found in rounds.items()
        ]
        return _drawing("Dice", lines, None, choice)
    if choice.method not in rounds:
        return _drawing("Dice", [], None, choice)
    found = rounds[choice.method]
    by_site = _site_dice(found, choice.region)
    lines = [
        Line(MEAN, _global_dice(found, choice.region)),
        *site_lines(found, by_site, choice.sites),
    ]
    return _drawing("Dice", lines, by_site, choice)


def loss_drawing(rounds: Mapping[str, MethodRounds], choice: Choice) -> Drawing:
    """Draw the training loss: the mean over sites, the band of all sites, and chosen sites."""
    choice = replace(choice, region="")
    if choice.method == EVERY_METHOD:
        lines = [Line(method_label(name), _global_loss(found)) for name, found in rounds.items()]
        return _drawing("Loss", lines, None, choice)
    if choice.method not in rounds:
        return _drawing("Loss", [], None, choice)
    found = rounds[choice.method]
    lines = [Line(MEAN, _global_loss(found)), *site_lines(found, found.loss, choice.sites)]
    return _drawing("Loss", lines, found.loss, choice)


def two_runs_drawing(what: str, lines: Sequence[Line]) -> Drawing:
    """Draw lines of two runs in one chart; `what` is Dice or Loss."""
    return _drawing(what, lines, None, Choice(EVERY_METHOD))


def method_lines(run: str, rounds: Mapping[str, MethodRounds], what: str) -> list[Line]:
    """Return a run's global curves, named by run and method."""
    values = {
        name: _global_loss(found) if what == "Loss" else _global_dice(found, EVERY_REGION)
        for name, found in rounds.items()
    }
    return [Line(f"{run}: {method_label(name)}", found) for name, found in values.items()]


def _global_dice(found: MethodRounds, region: str) -> Values:
    dice = found.global_dice()[:, _columns(found, region)]
    return dice.mean(axis=1) if dice.shape[1] else np.full(len(dice), np.nan)


def _global_loss(found: MethodRounds) -> Values:
    return np.where(np.isnan(found.sum_loss), mean_over(found.loss, axis=1), found.sum_loss)


def _site_dice(found: MethodRounds, region: str) -> Values:
    dice = found.dice[:, :, _columns(found, region)]
    return dice.mean(axis=2) if dice.shape[2] else np.full(dice.shape[:2], np.nan)


def _columns(found: MethodRounds, region: str) -> list[int]:
    return [place for place, name in enumerate(found.regions) if region in (name, EVERY_REGION)]


def site_lines(found: MethodRounds, by_site: Values, sites: Sequence[str]) -> list[Line]:
    """Return the lines of chosen sites out of values by round and site."""
    known = [site for site in sites if site in found.sites]
    return [Line(site, by_site[:, found.sites.index(site)]) for site in known]


def _drawing(what: str, lines: Sequence[Line], by_site: Values | None, choice: Choice) -> Drawing:
    drawn = [line for line in lines if np.isfinite(line.values).any()]
    dice = what == "Dice"
    of = f" of {choice.region}" if dice and choice.region != EVERY_REGION else ""
    title = f"Validation Dice{of} (no unit, 1 is best)" if dice else "Training loss (no unit)"
    series: list[dict[str, Any]] = []
    if by_site is not None:
        series += band_of(by_site)
    for place, line in enumerate(drawn):
        thick = line.name == MEAN
        series.append(line_series(line.name, points_of(line.values), place, thick=thick))
    columns, rows = table_of(drawn)
    return Drawing(
        options(
            x="Round",
            y=title,
            series=series,
            least=0 if dice else None,
            most=1 if dice else None,
        ),
        _description(title, drawn),
        columns,
        rows,
        "" if drawn else _missing(what),
    )


def points_of(values: Values) -> list[tuple[float, float]]:
    """Return (round, value) of what is known, thinned so that peaks stay."""
    known = np.flatnonzero(np.isfinite(values))
    curve = downsampled(Curve(known, values[known]))
    return [
        (int(at), round(float(value), 5))
        for at, value in zip(curve.rounds, curve.values, strict=True)
    ]


def band_of(by_site: Values) -> list[dict[str, Any]]:
    """Return the band from the lowest to the highest site; nothing for one site."""
    if by_site.shape[1] < 2 or not np.isfinite(by_site).any():
        return []
    known = np.flatnonzero(np.isfinite(by_site).any(axis=1))
    stretches = np.array_split(known, min(len(known), MOST_POINTS // 2))
    lows, highs = [], []
    for stretch in stretches:
        found = by_site[stretch]
        found = found[np.isfinite(found)]
        lows.append((int(stretch[0]), round(float(found.min()), 5)))
        highs.append((int(stretch[0]), round(float(found.max()), 5)))
    lows.append((int(known[-1]), lows[-1][1]))
    highs.append((int(known[-1]), highs[-1][1]))
    return band_series(BAND, lows, highs, COLOURS[0])


def _description(title: str, lines: Sequence[Line]) -> str:
    told = []
    for line in lines[:8]:
        known = np.flatnonzero(np.isfinite(line.values))
        ends = f"{line.values[known[0]]:.3f} after round {known[0]}"
        told.append(f"{line.name}: {ends}, {line.values[known[-1]]:.3f} after round {known[-1]}")
    more = f"; and {len(lines) - 8} more lines" if len(lines) > 8 else ""
    return f"Lines of {title} by round. {'; '.join(told)}{more}."


def table_of(lines: Sequence[Line]) -> tuple[list[Column], Callable[[], list[Row]]]:
    """Return the columns of a table with a line per round, and what makes its rows."""
    text = number_text(4)
    first = Column("round", "Round", "Number of the round", width=80)
    values = [Column(f"line{n}", line.name, line.name, text) for n, line in enumerate(lines)]
    return [first, *values], lambda: _rows_of(lines)


def _rows_of(lines: Sequence[Line]) -> list[Row]:
    n_rounds = max((len(line.values) for line in lines), default=0)
    rows: list[Row] = []
    for round_ in range(n_rounds):
        values = {
            f"line{n}": float(line.values[round_]) if round_ < len(line.values) else None
            for n, line in enumerate(lines)
        }
        if any(value is not None and np.isfinite(value) for value in values.values()):
            rows.append({"id": str(round_), "round": round_, **values})
    return rows


def _missing(what: str) -> str:
    if what == "Dice":
        return (
            "No validation Dice yet: sites test the weights on their own validation cases after "
            "each round. Where a site has none, or keeps its metrics, there is nothing to draw."
        )
    return (
        "No training loss: no round has finished yet, or the sites keep their loss (differential "
        "privacy, or a policy)."
    )
