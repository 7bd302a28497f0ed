"""The rounds of a method as charts and tables: how long they took, and whom they waited for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.figures import COLOURS, INK
from server.dashboard.method_rounds import OUTCOMES, MethodRounds
from server.dashboard.pages.chart import FONT, Drawing, options
from server.dashboard.pages.grid import Column, Row
from server.dashboard.pages.words import count_text, seconds_text, share_text

NO_ROUNDS = "No round yet: the first one begins when all sites agree on the plan."
ROUND_COLUMNS = (
    Column("round", "Round", "Number of the round", count_text, width=105, sort="desc"),
    Column("seconds", "Whole round", "By the coordinator's clock", seconds_text),
    Column("slowest", "Waited for", "The site that trained longest", width=150),
    Column("training", "It trained", "By that site's clock", seconds_text),
    Column("rest", "Everything else", "Transport, starting programs, aggregation", seconds_text),
    Column("sites", "Sites", "Whose updates counted", count_text, width=80),
    Column("failed", "Failed", "Sites whose answer did not count", width=200),
    Column("simulated", "Simulated", "By the clock of a simulation that has one", seconds_text),
)
SITE_COLUMNS = (
    Column("site", "Site", "Name of the site", width=160),
    Column("seconds", "Trained", "By the site's clock", seconds_text),
    Column("outcome", "Outcome", "What became of its answer"),
)
WAIT_COLUMNS = (
    Column("site", "Site", "Name of the site", width=160),
    Column("rounds", "Waited for in", "Rounds in which it trained longest", count_text,
           sort="desc"),
    Column("share", "Share", "Of the rounds in which it trained longest", share_text),
    Column("extra", "Beyond the second", "Sum of what it trained longer than the next slowest site",
           seconds_text, width=150),
)  # fmt: skip


def timeline_drawing(found: MethodRounds) -> Drawing:
    """Draw a bar per finished round: the slowest site's training below, the rest above."""
    rows = round_rows(found)
    names = [str(row["round"]) for row in rows]
    training = [_whole(row["training"]) for row in rows]
    rest = [_whole(row["rest"]) for row in rows]
    n_failed = sum(bool(row["failed"]) for row in rows)
    series = [
        _bars("slowest site's training", training, COLOURS[0], "time"),
        _bars("everything else", rest, COLOURS[4], "time"),
    ]
    return Drawing(
        options(x="Round", y="Seconds", kind="category", series=series, names=names, zoom=True),
        f"Bars of the seconds of {len(rows)} rounds; in {n_failed} of them a site failed. The "
        "table names the site that each round waited for.",
        ROUND_COLUMNS,
        lambda: rows,
        "" if rows else NO_ROUNDS,
    )


def waiting_drawing(found: MethodRounds) -> Drawing:
    """Draw a mark per round at the site that it waited for, and one at every site that failed."""
    rows = round_rows(found)
    failures = [
        (str(row["round"]), site)
        for row in rows
        for site in found.sites_with("failed", int(row["round"]))
    ]
    waits = [(str(row["round"]), str(row["slowest"])) for row in rows if row["slowest"]]
    seen = {site for _, site in (*waits, *failures)}
    shown = options(
        x="Round",
        y="Site",
        kind="category",
        names=[str(row["round"]) for row in rows],
        series=[
            _marks("waited for", waits, COLOURS[0], "circle"),
            _marks("failed", failures, COLOURS[1], "triangle"),
        ],
        zoom=True,
    )
    sites = [site for site in reversed(found.sites) if site in seen]
    shown["yAxis"] |= {"type": "category", "data": sites, "axisLabel": {"width": 90,
                       "overflow": "truncate", "color": INK, "fontFamily": FONT}}  # fmt: skip
    shown["grid"] |= {"left": 110}
    return Drawing(
        shown,
        f"Marks of the site that each of {len(rows)} rounds waited for, and of {len(failures)} "
        "failures.",
        ROUND_COLUMNS,
        lambda: rows,
        "" if waits or failures else NO_ROUNDS,
    )


def round_rows(found: MethodRounds) -> list[Row]:
    """Return a line per finished round."""
    rows: list[Row] = []
    for round_ in np.flatnonzero(np.isfinite(found.round_s)):
        slowest = found.slowest(int(round_))
        training = slowest[1] if slowest else None
        whole = float(found.round_s[round_])
        rows.append(
            {
                "id": str(round_),
                "round": int(round_),
                "seconds": whole,
                "slowest": slowest[0] if slowest else "",
                "training": training,
                "rest": max(0.0, whole - (training or 0.0)),
                "sites": int(found.n_sites[round_]),
                "failed": ", ".join(found.sites_with("failed", int(round_))),
                "simulated": float(found.simulated_s[round_]),
            }
        )
    return rows


def round_drawing(found: MethodRounds, round_: int | None) -> Drawing:
    """Draw a bar per site of one round, the longest first; the last round if None is chosen."""
    chosen = _last(found) if round_ is None else round_
    known = chosen is not None and 0 < chosen < len(found.round_s)
    rows = _site_rows(found, int(chosen or 0)) if known else []
    names = [str(row["site"]) for row in rows]
    series = [_bars("training", [_whole(row["seconds"]) for row in rows], COLOURS[0], None)]
    slowest = f" It waited longest for {names[0]}." if names else ""
    return Drawing(
        options(x=f"Sites of round {chosen}", y="Seconds", kind="category", series=series,
                names=names, zoom=False),
        f"Bars of the seconds that {len(rows)} sites trained in round {chosen}.{slowest}",
        SITE_COLUMNS,
        lambda: rows,
        "" if rows else f"Nothing is known of round {chosen}: no site has answered in it."
        if chosen else NO_ROUNDS,
    )  # fmt: skip


def wait_rows(found: MethodRounds) -> list[Row]:
    """Return a line per site that some round waited for."""
    seconds = np.nan_to_num(found.training_s, nan=0.0)
    some = seconds[(seconds > 0).any(axis=1)]
    if not some.size or some.shape[1] < 2:
        return []
    slowest, ordered = some.argmax(axis=1), np.sort(some, axis=1)
    beyond = ordered[:, -1] - ordered[:, -2]
    counts = np.bincount(slowest, minlength=len(found.sites))
    return [
        {
            "id": found.sites[place],
            "site": found.sites[place],
            "rounds": int(counts[place]),
            "share": float(counts[place] / len(some)),
            "extra": float(beyond[slowest == place].sum()),
        }
        for place in map(int, np.argsort(-counts, kind="stable"))
        if counts[place]
    ]


def _last(found: MethodRounds) -> int | None:
    known = np.flatnonzero((found.outcome > 0).any(axis=1))
    return int(known[-1]) if len(known) else None


def _site_rows(found: MethodRounds, round_: int) -> list[Row]:
    rows: list[Row] = []
    for place in np.argsort(-np.nan_to_num(found.training_s[round_], nan=-1.0), kind="stable"):
        outcome = OUTCOMES[int(found.outcome[round_, place])]
        if outcome != "none":
            site, seconds = found.sites[place], float(found.training_s[round_, place])
            rows.append({"id": site, "site": site, "seconds": seconds, "outcome": outcome})
    return rows


def _marks(
    name: str, places: Sequence[tuple[str, str]], colour: str, symbol: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "name": name,
        "data": [list(place) for place in places],
        "symbol": symbol,
        "symbolSize": 9,
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
    }


def _bars(name: str, values: list[float | None], colour: str, stack: str | None) -> dict[str, Any]:
    shape: Mapping[str, Any] = {} if stack is None else {"stack": stack}
    return {
        "type": "bar",
        "name": name,
        "data": values,
        "itemStyle": {"color": colour},
        "emphasis": {"disabled": True},
        **shape,
    }


def _whole(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 2)
