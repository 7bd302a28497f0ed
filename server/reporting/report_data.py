"""What a report shows, collected from a run directory's files and nothing else.

`events.jsonl` is the single truth of what happened; `scores/` and `ranking.json` hold the
numbers. A run that is unfinished, or was killed, can be collected at any moment.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd

from common.codec import read_json
from common.errors import ConfigError
from common.evaluation.aggregates import Aggregate
from common.evaluation.scores import ScoringDefinition, require_one_definition
from common.messages import Ranked
from common.planning.plan import AnyConfiguration, Plan
from common.ranks.ranking import Ranking
from server.events import (
    Event,
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PlanMade,
    PostprocessingChosen,
    ReplyIgnored,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SitePersonalised,
    SitePrivacySpent,
    SiteTrained,
    SiteValidated,
    SumsReleased,
    read_events,
)
from server.reporting.held_out_data import score_rows

T = TypeVar("T")

LOCAL_ONLY = "local-only"
RELEASES = ("secure-sum", "ranks", "aggregates", "cases")
METHOD_LABELS = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "feddyn": "FedDyn",
    "fedavgm": "FedAvgM",
    "fedadagrad": "FedAdagrad",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "ida": "IDA",
    "dwa": "DWA",
    "median": "Coordinate median",
    "trimmed-mean": "Trimmed mean",
    "krum": "Krum",
    "multi-krum": "Multi-Krum",
    "bulyan": "Bulyan",
    "trust": "Trust bootstrapping",
    "partial-sharing": "Partial sharing",
    "cyclic": "Cyclic",
    "incremental": "Institutional incremental",
    LOCAL_ONLY: "Local only",
}


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
class Fault:
    """A reply that did not count, or a site that is no longer asked."""

    site: str
    method: str
    round: int
    code: str
    reason: str


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
    site_privacy: tuple[SitePrivacySpent, ...]
    """In the order of the log; a round that was repeated costs again."""
    validated: tuple[SiteValidated, ...]
    personalised: tuple[SitePersonalised, ...]
    rounds: tuple[RoundFinished, ...]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    postprocessing: tuple[PostprocessingChosen, ...]
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
    aggregates: dict[str, tuple[Aggregate, ...]]
    """By held-out site, of those that release neither more nor less."""
    together: SumsReleased | None
    """What held-out sites let out only as the sum over all of them."""

    @property
    def configurations(self) -> dict[str, AnyConfiguration]:
        """What was trained of the plan; all of it where the run's own configuration is absent."""
        whole = self.plan.configurations.items() if self.plan else ()
        planned: dict[str, AnyConfiguration] = {str(name): found for name, found in whole}
        model = tomllib.loads(self.config_text).get("model", {})
        trained = model.get("configuration")
        return {trained: planned[trained]} if trained in planned else planned

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
        """Sites that tested a model, in alphabetical order."""
        closed = {event.site for event in self.held_out if event.metrics != "cases"}
        return tuple(sorted(closed | set(self.scores["site"])))

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions of which some metric is known."""
        aggregated = (row.region for rows in self.aggregates.values() for row in rows)
        summed = (row.region for row in self.together.results) if self.together else ()
        return tuple(dict.fromkeys([*self.scores["region"], *aggregated, *summed]))

    @property
    def n_ranked_cases(self) -> int:
        """Number of held-out cases that a ranked method was scored on."""
        if self.ranking and self.ranking.n_cases is not None:
            return sum(self.ranking.n_cases.values())
        ranked = self.scores[self.scores["method"].isin(self.methods)]
        return len(ranked[["site", "case"]].drop_duplicates())

    def release_of(self, site: str) -> str:
        """Return how much a held-out site told of its metrics, a word of `RELEASES`."""
        levels = [event.metrics for event in self.held_out if event.site == site]
        return "cases" if not levels else min(levels, key=RELEASES.index)

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
        site_privacy=tuple(e for e in events if isinstance(e, SitePrivacySpent)),
        trained=_last(events, SiteTrained, lambda event: (event.method, event.round, event.site)),
        validated=_last(
            events, SiteValidated, lambda event: (event.method, event.round, event.site)
        ),
        personalised=_last(events, SitePersonalised, lambda event: (event.method, event.site)),
        rounds=_last(events, RoundFinished, lambda event: (event.method, event.round)),
        faults=tuple(_faults(events)),
        notes=tuple(dict.fromkeys(event.text for event in events if isinstance(event, Note))),
        postprocessing=_last(events, PostprocessingChosen, lambda event: event.method),
        held_out=_last(events, HeldOutScored, lambda event: (event.method, event.site)),
        floors=_last(events, FloorMeasured, lambda event: (event.site, event.region)),
        pictures=_last(
            events, PictureReleased, lambda event: (event.method, event.site, event.kind)
        ),
        finished=next(iter(_last(events, RunFinished, lambda _: 0)), None),
        scores=score_rows(score_files),
        definition=require_one_definition({str(path): path for path in score_files}),
        ranking=read_json(Ranking, ranking) if ranking.is_file() else None,
        aggregates={
            path.stem: found
            for path in sorted(run_dir.glob("released/*.json"))
            if (found := read_json(Ranked, path).aggregates)
        },
        together=next(iter(_last(events, SumsReleased, lambda _: 0)), None),
    )


def _faults(events: Iterable[Event]) -> Iterator[Fault]:
    """Yield what did not count, in the order of the log."""
    for event in events:
        match event:
            case SiteFailed():
                yield Fault(event.site, event.method, event.round, event.code, event.reason)
            case ReplyIgnored():
                yield Fault(event.site, event.method, event.round, "ignored", event.reason)
            case SiteExcluded():
                yield Fault(event.site, event.method, event.round, "excluded", event.reason)


def method_label(method: str) -> str:
    """Return the name of a method as papers print it."""
    name, at, site = method.partition("@")
    return METHOD_LABELS.get(name, name) + at + site


def compare_with_floors(data: ReportData) -> tuple[FloorComparison, ...]:
    """Set every measured floor against the federated models on the same site and region."""
    comparisons = []
    for floor in data.floors:
        scores = data.scores
        rows = scores[(scores["site"] == floor.site) & (scores["region"] == floor.region)]
        means = rows.groupby("method")["dice"].mean().to_dict()
        for row in data.aggregates.get(floor.site, ()):
            if row.region == floor.region:
                means.setdefault(row.method, row.dice.mean)
        federated = {name: float(means[name]) for name in data.federated_methods if name in means}
        comparisons.append(FloorComparison(floor, federated))
    return tuple(comparisons)


def _last(events: Iterable[Event], kind: type[T], key: Callable[[T], object]) -> tuple[T, ...]:
    """Return the events of a kind, of equal keys the last: a resumed run repeats its round."""
    return tuple({key(event): event for event in events if isinstance(event, kind)}.values())
