"""What a report shows, collected from a run directory's files and nothing else.

`events.jsonl` is the single truth of what happened; `scores/` and `ranking.json` hold the
numbers. A run that is unfinished, or was killed, can be collected at any moment.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd

from common.codec import read_json, read_toml
from common.config import RunConfig
from common.errors import ConfigError
from common.evaluation.aggregates import Aggregate
from common.evaluation.scores import ScoringDefinition, require_one_definition
from common.messages import Ranked
from common.planning.plan import AnyConfiguration, Plan
from common.ranks.ranking import Ranking
from common.task import Task
from server.events import (
    Event,
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PlanMade,
    PostprocessingChosen,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteJoined,
    SiteMasked,
    SitePersonalised,
    SitePrivacySpent,
    SiteTrained,
    SiteValidated,
    SumOpened,
    SumsReleased,
)
from server.planning.cohort import CohortRecord
from server.reporting.faults import Fault, faults_of
from server.reporting.held_out_data import score_rows
from server.reporting.run_files import read_if_fits
from server.reporting.run_log import RunLog, read_log

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
class ReportData:
    """Everything that a report shows. Repeated work after a resumption is counted once."""

    started: RunStarted
    started_at: datetime
    n_resumptions: int
    sites: tuple[SiteJoined, ...]
    log: RunLog
    """All of the log that can be read, in its order."""
    defects: tuple[str, ...]
    """Of files of the run that do not fit this version."""
    config_text: str
    config: RunConfig | None
    """None where it is absent or does not fit this version."""
    task: Task | None
    plan: Plan | None
    cohort: CohortRecord | None
    plan_made: PlanMade | None
    trained: tuple[SiteTrained, ...]
    site_privacy: tuple[SitePrivacySpent, ...]
    """In the order of the log; a round that was repeated costs again."""
    masked: tuple[SiteMasked, ...]
    """Of rounds whose updates are seen only as a sum."""
    sums: tuple[SumOpened, ...]
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
        trained = self.config.model.configuration if self.config else ""
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
        seen = {event.site for event in self.trained} | {event.site for event in self.masked}
        seen |= {event.site for event in self.validated}
        joined = [site.site for site in self.sites if site.site in seen]
        return (*joined, *sorted(seen - set(joined)))


def collect(run_dir: Path) -> ReportData:
    """Read a run directory, in whatever state it is.

    Returns:
        What is there; parts that an unfinished run lacks are None or empty, and so are those that
        do not fit this version, which `defects` and `log.unreadable` name.

    Raises:
        ConfigError: when `run_dir` is not a run, or its scores are malformed.
    """
    path = run_dir / "events.jsonl"
    if not path.is_file():
        raise ConfigError(f"{run_dir}: expected a run directory, found no events.jsonl in it")
    log, defects = read_log(path), list[str]()
    events, config_file = log.events, run_dir / "config.toml"
    config = read_if_fits(read_toml, RunConfig, config_file, defects)
    starts = [(time, event) for time, event in log.timed if isinstance(event, RunStarted)]
    if not starts:
        starts = [_start_by_config(run_dir, log, config)]
    score_files = sorted(run_dir.glob("scores/*/*.csv"))
    released = {
        file.stem: read_if_fits(read_json, Ranked, file, defects)
        for file in sorted(run_dir.glob("released/*.json"))
    }
    return ReportData(
        started=starts[-1][1],
        started_at=starts[0][0],
        n_resumptions=sum(event.resumed for _, event in starts),
        sites=_last(events, SiteJoined, lambda event: event.site),
        log=log,
        config_text=config_file.read_text(encoding="utf-8", errors="replace")
        if config_file.is_file()
        else "",
        config=config,
        task=read_if_fits(read_toml, Task, run_dir / "task.toml", defects),
        plan=read_if_fits(read_json, Plan, run_dir / "plan.json", defects),
        cohort=read_if_fits(read_json, CohortRecord, run_dir / "cohort.json", defects),
        plan_made=next(iter(_last(events, PlanMade, lambda _: 0)), None),
        site_privacy=tuple(e for e in events if isinstance(e, SitePrivacySpent)),
        trained=_last(events, SiteTrained, lambda event: (event.method, event.round, event.site)),
        masked=_last(events, SiteMasked, lambda event: (event.method, event.round, event.site)),
        sums=_last(events, SumOpened, lambda event: (event.method, event.round)),
        validated=_last(
            events, SiteValidated, lambda event: (event.method, event.round, event.site)
        ),
        personalised=_last(events, SitePersonalised, lambda event: (event.method, event.site)),
        rounds=_last(events, RoundFinished, lambda event: (event.method, event.round)),
        faults=tuple(faults_of(events)),
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
        ranking=read_if_fits(read_json, Ranking, run_dir / "ranking.json", defects),
        aggregates={
            site: found.aggregates for site, found in released.items() if found and found.aggregates
        },
        together=next(iter(_last(events, SumsReleased, lambda _: 0)), None),
        defects=tuple(defects),  # last: the files above add theirs
    )


def _start_by_config(
    run_dir: Path, log: RunLog, config: RunConfig | None
) -> tuple[datetime, RunStarted]:
    """Return the start of a run whose log does not tell it, from the configuration beside it.

    Raises:
        ConfigError: when there is none either.
    """
    if config is None or not log.timed:
        log_file = run_dir / "events.jsonl"
        raise ConfigError(f"{log_file}: expected a RunStarted event, found none")
    start = RunStarted(
        run=run_dir.resolve().name,
        task=Path(config.task).stem,
        methods=config.federation.methods,
        seed=config.federation.seed,
        resumed=False,
        versions={},
        device="not told",
    )
    return log.timed[0][0], start


def method_label(method: str) -> str:
    """Return the name of a method as papers print it."""
    name, at, site = method.partition("@")
    return METHOD_LABELS.get(name, name) + at + site


def _last(events: Iterable[Event], kind: type[T], key: Callable[[T], object]) -> tuple[T, ...]:
    """Return the events of a kind, of equal keys the last: a resumed run repeats its round."""
    return tuple({key(event): event for event in events if isinstance(event, kind)}.values())
