"""What a finished run says of its methods: held-out means, ranking, floor, what it took."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from math import fsum

import pandas as pd

from common.codec import read_json
from common.messages import Ranked
from common.ranks.ranking import Ranking
from server.events import FloorMeasured, RunFinished
from server.exporting.points import WHOLE_RUN, Point, safe
from server.reporting.held_out_data import score_rows
from server.run_folder import RunFolder

METRICS = {"dice": "dice", "hd95": "hd95_mm"}
"""That cases and aggregates both have, and how the points are called."""


def summary_points(
    folder: RunFolder, finished: RunFinished, time: datetime, last_round: Mapping[str, int]
) -> list[Point]:
    """Return the points of a finished run.

    Args:
        folder: the run directory; scores, released aggregates and ranking are read where they are.
        finished: the event that ended the run.
        time: of the event.
        last_round: of each method, at which its points stand.

    Raises:
        ConfigError: when one of the files is malformed.
    """
    run = {"run/seconds": finished.seconds, "run/peak_memory_bytes": finished.peak_memory_bytes}
    points = [Point(WHOLE_RUN, name, 0, float(value), time) for name, value in run.items()]
    for method, name, value in [*_held_out(folder), *_ranks(folder)]:
        if method in last_round:
            points.append(Point(method, name, last_round[method], value, time))
    return points


def floor_point(event: FloorMeasured, time: datetime) -> Point:
    """Return the learning-free floor as a point of the whole run."""
    name = f"floor/dice/region/{safe(event.region)}/site/{event.site}"
    return Point(WHOLE_RUN, name, 0, event.mean_dice, time)


def _ranks(folder: RunFolder) -> Iterator[tuple[str, str, float]]:
    if not folder.ranking.is_file():
        return
    ranking = read_json(Ranking, folder.ranking)
    for method in ranking.methods:
        yield method, "rank/mean", ranking.mean_rank[method]
        yield method, "rank/score", ranking.score[method]
        yield method, "rank/place", float(ranking.final_rank[method])


def _held_out(folder: RunFolder) -> Iterator[tuple[str, str, float]]:
    """Yield the means over cases, at each held-out site and over the cases of all of them."""
    parts: dict[tuple[str, str, str], list[tuple[int, float]]] = defaultdict(list)
    for method, site, region, metric, n_cases, mean in _means(folder):
        parts[method, region, metric].append((n_cases, mean))
        yield method, f"held_out/{metric}/region/{safe(region)}/site/{site}", mean
    by_metric: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (method, region, metric), means in parts.items():
        pooled = fsum(n * mean for n, mean in means) / sum(n for n, _ in means)
        by_metric[method, metric].append(pooled)
        yield method, f"held_out/{metric}/region/{safe(region)}", pooled
    for (method, metric), pooled_means in by_metric.items():
        yield method, f"held_out/{metric}/mean", fsum(pooled_means) / len(pooled_means)


def _means(folder: RunFolder) -> Iterator[tuple[str, str, str, str, int, float]]:
    """Yield (method, site, region, metric, n_cases, mean); as the ranking counts missing values."""
    rows = score_rows(sorted(folder.path.glob("scores/*/*.csv")))
    for key, cases in rows.groupby(["method", "site", "region"], sort=False):
        method, site, region = map(str, key)
        for column, metric in METRICS.items():
            yield method, site, region, metric, len(cases), _mean(cases[column])
    for path in sorted(folder.path.glob("released/*.json")):
        known = {(row.method, row.region): row for row in read_json(Ranked, path).aggregates}
        for (method, region), row in known.items():
            if not folder.scores(method, path.stem).exists():
                yield method, path.stem, region, "dice", row.n_cases, row.dice.mean
                yield method, path.stem, region, "hd95_mm", row.n_cases, row.hd95.mean


def _mean(values: "pd.Series[float]") -> float:
    return fsum(values) / len(values)
