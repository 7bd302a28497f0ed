"""What a report shows, collected from a run directory's files and nothing else.

`events.jsonl` is the single truth of what happened; `scores/` and `ranking.json` hold the
numbers. A run that is unfinished, or was killed, can be collected at any moment.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd

from common.codec import read_json
from common.errors import ConfigError
from common.metrics import BRATS_RULES
from common.plan import Plan
from common.ranking import Ranking
from common.scores import COLUMNS, ScoringDefinition, read_scores, require_one_definition
from server.events import (
    Event,
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PlanMade,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteFailed,
    SiteJoined,
    SiteTrained,
    SiteValidated,
    read_events,
)

T = TypeVar("T")

ONE_EMPTY_TOLERANCE_MM = 1e-3  # a CSV of another tool may carry fewer digits
LOCAL_ONLY = "local-only"
METHOD_LABELS = {"fedavg": "FedAvg", "fedprox": "FedProx", LOCAL_ONLY: "Local only"}


@dataclass(frozen=True)
class Spread:
    """Location and spread of one metric over cases; `sd` is NaN for a single case."""

    mean: float
    sd: float
    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class RegionSummary:
    """One line of the held-out table."""

    method: str
    region: str
    n_cases: int
    dice: Spread
    hd95: Spread
    """In mm."""
    n_missed: int
    """Cases whose prediction was empty although the reference was not."""
    n_false_alarms: int
    """Cases whose reference was empty although the prediction was not."""
    n_exact: int
    """Dice 1 and HD95 0: both empty, or the same voxels."""

    @property
    def trained_at(self) -> str:
        """Site of a model that one site trained alone, else empty."""
        return self.method.partition("@")[2]


@dataclass(frozen=True)
class FloorComparison:
    """The learning-free floor and the federated models' mean Dice on the same site and region."""

    floor: FloorMeasured
    mean_dice: dict[str, float]

    @property
    def beaten_by(self) -> tuple[str, ...]:
        """Methods whose mean Dice is strictly above the floor."""
        return tuple(name for name, dice in self.mean_dice.items() if dice > self.floor.mean_dice)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows. Repeated work after a resumption is counted once."""

    started: RunStarted
    started_at: datetime
    n_resumptions: int
    sites: tuple[SiteJoined, ...]
    config_text: str
    plan: Plan | None
    plan_made: PlanMade | None
    trained: tuple[SiteTrained, ...]
    validated: tuple[SiteValidated, ...]
    rounds: tuple[RoundFinished, ...]
    failures: tuple[SiteFailed, ...]
    notes: tuple[str, ...]
    held_out: tuple[HeldOutScored, ...]
    floors: tuple[FloorMeasured, ...]
    pictures: tuple[PictureReleased, ...]
    finished: RunFinished | None
    scores: pd.DataFrame
    """Columns method, site and those of the scores files; empty before the first test. A missing
    value stands as what the ranking counts it as: Dice 0, HD95 374 mm."""
    definition: ScoringDefinition | None
    """What the scores mean; None when no definition lies beside them."""
    ranking: Ranking | None

    @property
    def methods(self) -> tuple[str, ...]:
        """Methods in the order of the configuration."""
        return self.started.methods

    @property
    def federated_methods(self) -> tuple[str, ...]:
        """Methods that made one model together."""
        return tuple(name for name in self.methods if name != LOCAL_ONLY)

    @property
    def held_out_sites(self) -> tuple[str, ...]:
        """Sites with scores, in alphabetical order."""
        return tuple(sorted(set(self.scores["site"])))

    @property
    def n_ranked_cases(self) -> int:
        """Number of held-out cases that a ranked method was scored on."""
        ranked = self.scores[self.scores["method"].isin(self.methods)]
        return len(ranked[["site", "case"]].drop_duplicates())

    @property
    def training_sites(self) -> tuple[str, ...]:
        """Sites that sent an update, in the order in which the sites joined."""
        seen = {event.site for event in self.trained} | {event.site for event in self.validated}
        joined = [site.site for site in self.sites if site.site in seen]
        return (*joined, *sorted(seen - set(joined)))


def collect(run_dir: Path) -> ReportData:
    """Read a run directory.

    Returns:
        What is there; parts that an unfinished run lacks are None or empty.

    Raises:
        ConfigError: when `run_dir` is not a run, or one of its files is malformed.
    """
    log = run_dir / "events.jsonl"
    if not log.is_file():
        raise ConfigError(f"{run_dir}: expected a run directory, found no events.jsonl in it")
    timed = list(read_events(log))
    starts = [(time, event) for time, event in timed if isinstance(event, RunStarted)]
    if not starts:
        raise ConfigError(f"{log}: expected a RunStarted event, found none")
    events = [event for _, event in timed]
    config, plan, ranking = (
        run_dir / name for name in ("config.toml", "plan.json", "ranking.json")
    )
    score_files = sorted(run_dir.glob("scores/*/*.csv"))
    return ReportData(
        started=starts[-1][1],
        started_at=starts[0][0],
        n_resumptions=sum(event.resumed for _, event in starts),
        sites=_last(events, SiteJoined, lambda event: event.site),
        config_text=config.read_text(encoding="utf-8") if config.is_file() else "",
        plan=read_json(Plan, plan) if plan.is_file() else None,
        plan_made=next(iter(_last(events, PlanMade, lambda _: 0)), None),
        trained=_last(events, SiteTrained, lambda event: (event.method, event.round, event.site)),
        validated=_last(
            events, SiteValidated, lambda event: (event.method, event.round, event.site)
        ),
        rounds=_last(events, RoundFinished, lambda event: (event.method, event.round)),
        failures=tuple(event for event in events if isinstance(event, SiteFailed)),
        notes=tuple(dict.fromkeys(event.text for event in events if isinstance(event, Note))),
        held_out=_last(events, HeldOutScored, lambda event: (event.method, event.site)),
        floors=_last(events, FloorMeasured, lambda event: (event.site, event.region)),
        pictures=_last(
            events, PictureReleased, lambda event: (event.method, event.site, event.kind)
        ),
        finished=next(iter(_last(events, RunFinished, lambda _: 0)), None),
        scores=_score_rows(score_files),
        definition=require_one_definition({str(path): path for path in score_files}),
        ranking=read_json(Ranking, ranking) if ranking.is_file() else None,
    )


def method_label(method: str) -> str:
    """Return the name of a method as papers print it."""
    name, at, site = method.partition("@")
    return METHOD_LABELS.get(name, name) + at + site


def summarise(scores: pd.DataFrame, methods: Sequence[str]) -> tuple[RegionSummary, ...]:
    """Summarise one held-out site's scores.

    Args:
        scores: rows of one site.
        methods: order within a region; a method without rows is left out.

    Returns:
        One summary per region (in the file's order) and method; empty for no rows.
    """
    regions = dict.fromkeys(scores["region"])
    groups = dict(list(scores.groupby(["region", "method"])))
    keys = [(region, method) for region in regions for method in methods]
    return tuple(_summary(*key, groups[key]) for key in keys if key in groups)


def compare_with_floors(data: ReportData) -> tuple[FloorComparison, ...]:
    """Set every measured floor against the federated models on the same site and region."""
    comparisons = []
    for floor in data.floors:
        scores = data.scores
        rows = scores[(scores["site"] == floor.site) & (scores["region"] == floor.region)]
        means = rows.groupby("method")["dice"].mean().to_dict()
        federated = {name: float(means[name]) for name in data.federated_methods if name in means}
        comparisons.append(FloorComparison(floor, federated))
    return tuple(comparisons)


def _last(events: Iterable[Event], kind: type[T], key: Callable[[T], object]) -> tuple[T, ...]:
    """Return the events of a kind, of equal keys the last: a resumed run repeats its round."""
    return tuple({key(event): event for event in events if isinstance(event, kind)}.values())


def _score_rows(paths: Sequence[Path]) -> pd.DataFrame:
    rows = [
        {"method": path.parent.name, "site": path.stem, "case": case, "region": region}
        | asdict(score)
        for path in paths
        for case, regions in read_scores(path).items()
        for region, score in regions.items()
    ]
    frame = pd.DataFrame(rows, columns=["method", "site", *COLUMNS])
    return frame.replace(math.inf, math.nan).fillna(asdict(BRATS_RULES.missing_case))


def _summary(region: str, method: str, rows: pd.DataFrame) -> RegionSummary:
    one_empty = (rows["hd95"] - BRATS_RULES.hd95_one_empty_mm).abs() < ONE_EMPTY_TOLERANCE_MM
    false_alarm = one_empty & (rows["specificity"] < 1.0)  # an empty prediction has no false voxel
    return RegionSummary(
        method=method,
        region=region,
        n_cases=len(rows),
        dice=_spread(rows["dice"]),
        hd95=_spread(rows["hd95"]),
        n_missed=int((one_empty & ~false_alarm).sum()),
        n_false_alarms=int(false_alarm.sum()),
        n_exact=int(((rows["dice"] == 1.0) & (rows["hd95"] == 0.0)).sum()),
    )


def _spread(values: "pd.Series[float]") -> Spread:
    q1, median, q3 = (float(values.quantile(share)) for share in (0.25, 0.5, 0.75))
    return Spread(float(values.mean()), float(values.std(ddof=1)), median, q1, q3)
