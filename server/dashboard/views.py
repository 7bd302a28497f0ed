"""What the pages show of a run: plain frozen records, made anew whenever something changed.

Times are in UTC. None means that it is not known, or does not apply.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pandas as pd

from common.evaluation.aggregates import Aggregate
from common.planning.plan import Plan
from common.ranks.ranking import Ranking
from server.coordinator.run_status import Overhead
from server.dashboard.method_rounds import MethodRounds
from server.events import (
    FloorMeasured,
    HeldOutScored,
    PictureReleased,
    PlanMade,
    PostprocessingChosen,
    RunStarted,
    SitePersonalised,
    SitePrivacySpent,
    SumsReleased,
)
from server.log_lines import UnreadableLine

RunState = Literal["waiting", "running", "finished", "failed", "stalled", "unreadable"]
"""waiting: for sites, a person's approval or preparation, before the first round; failed: the
round at hand cannot count any more; stalled: no event for longer than the alarm rule allows;
unreadable: no line of its log could be read."""
SiteState = Literal[
    "joined",
    "awaits approval",
    "working",
    "answered",
    "silent",
    "failing",
    "excluded",
    "left",
    "held out",
    "tested",
]
Severity = Literal["info", "warning", "critical"]
Phase = Literal["joining", "planning", "rounds", "testing", "finished"]


@dataclass(frozen=True)
class Alarm:
    """Something that a study lead should look at; it is gone when its cause is."""

    rule: str
    """Name of the rule in `alarms.RULES`."""
    severity: Severity
    run: str
    """Empty for the folder of runs as a whole."""
    site: str
    """Empty for the run as a whole."""
    since: datetime
    text: str
    """One sentence with numbers and units."""
    reason: str
    """Why the rule is as it is."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes it the same alarm as before; of the folder's own it is not the time."""
        since = self.since.isoformat(timespec="seconds") if self.run else ""
        return self.run, self.rule, self.site, since


@dataclass(frozen=True)
class BestDice:
    """The best validation Dice of a run: mean over regions and sites."""

    dice: float
    method: str
    round: int


@dataclass(frozen=True)
class Progress:
    """How far a run is, all methods counted."""

    phase: Phase
    n_rounds_done: int
    n_rounds: int | None
    """Of all methods together; None when the configuration cannot be read."""
    round_s: float | None
    """Median of the finished rounds of the method at hand; None before the first."""
    left_s: float | None
    """Of the rounds that are left; None before the first round; 0 in the test phase."""
    text: str
    """Where it is and whom it waits for, in words."""

    @property
    def fraction(self) -> float:
        """Share of the rounds, from 0 to 1."""
        return min(1.0, self.n_rounds_done / self.n_rounds) if self.n_rounds else 0.0


@dataclass(frozen=True)
class RunSummary:
    """A run's line in the table of all runs."""

    name: str
    """Of its folder; what the store is asked with."""
    state: RunState
    reason: str
    """Why it is in that state, in words; empty where that is plain."""
    task: str
    """Empty before the run has started."""
    methods: tuple[str, ...]
    method: str
    """At hand, or the last one; empty before the first round."""
    round: int
    """The last one of `method` that finished."""
    n_rounds: int | None
    """Of each method."""
    n_sites: int
    """That train; those that left or are excluded not counted."""
    n_held_out: int
    best: BestDice | None
    epsilon: float | None
    """Spent for patients, largest over sites; None without differential privacy."""
    budget_used: float | None
    """Largest share over sites of the site's own budget, 0 to 1."""
    site_epsilon: float | None
    """Of site-level privacy, noise at the coordinator."""
    upload_bytes: int
    """From the sites, all accepted updates."""
    download_bytes: int
    """To the sites, repetitions included."""
    started: datetime | None
    last_event: datetime | None
    seconds: float | None
    """From the first event to the last."""
    progress: Progress
    n_alarms: int
    worst: Severity | None
    """Of its alarms."""
    n_unreadable: int
    """Lines of its log."""
    revision: int
    """Grows with every change of this run."""


@dataclass(frozen=True)
class SiteRow:
    """A site's line in the table of a run's sites."""

    site: str
    role: str
    """training, held-out, or empty when only its answers are known."""
    state: SiteState
    reason: str
    """Why it is in that state, in words."""
    last_seen: datetime | None
    n_cases: int | None
    last_method: str
    last_round: int | None
    """That it answered."""
    n_rounds: int
    """With an accepted update, all methods."""
    median_s: float | None
    """Seconds of training per round."""
    last_s: float | None
    upload_bytes: int
    download_bytes: int
    upload_bytes_per_round: float | None
    """Mean over its rounds."""
    download_bytes_per_round: float | None
    n_late: int
    """Updates that came in a later round than they were asked for."""
    n_failures: int
    n_failures_in_a_row: int
    last_failure: str
    """Code and reason; empty without any."""
    n_refusals: int
    """Failures by the site's own policy."""
    last_refusal: str
    epsilon: float | None
    """Spent in this run."""
    delta: float | None
    budget_used: float | None
    """Share of the site's whole budget, 0 to 1."""
    last_loss: float | None
    last_dice: float | None
    """Mean over regions of the last validation."""

    @property
    def budget_left(self) -> float | None:
        """Share of the site's whole budget that is left."""
        return None if self.budget_used is None else 1.0 - self.budget_used


@dataclass(frozen=True)
class Fault:
    """An answer that did not count, or a site that is no longer asked."""

    time: datetime
    method: str
    round: int
    site: str
    code: str
    """As the site says; or ignored, excluded."""
    reason: str


@dataclass(frozen=True)
class FilesRead:
    """What lies in the run folder beside the events."""

    config_text: str
    """`config.toml` as it stands; empty without one."""
    config: dict[str, str]
    """Its settings by dotted name, for comparing two runs."""
    plan: Plan | None
    scores: pd.DataFrame
    """Columns method, site and those of the scores files; empty before the first test."""
    aggregates: dict[str, tuple[Aggregate, ...]]
    """By held-out site, of those that release neither more nor less."""
    ranking: Ranking | None
    errors: tuple[str, ...]
    """Files that could not be read, and why, in words."""


@dataclass(frozen=True)
class RunDetail:
    """Everything that the page of one run shows, apart from its log."""

    summary: RunSummary
    started: RunStarted | None
    """The last start."""
    n_resumptions: int
    sites: tuple[SiteRow, ...]
    """Training sites by name, then held-out ones."""
    rounds: dict[str, MethodRounds]
    """By method, in the order of the configuration."""
    faults: tuple[Fault, ...]
    """The newest last, at most `kept.MOST_FAULTS`."""
    n_faults: int
    notes: tuple[tuple[datetime, str], ...]
    plan_made: PlanMade | None
    site_privacy: tuple[SitePrivacySpent, ...]
    """Last of each method and round."""
    personalised: tuple[SitePersonalised, ...]
    postprocessing: tuple[PostprocessingChosen, ...]
    held_out: tuple[HeldOutScored, ...]
    together: tuple[SumsReleased, ...]
    """What held-out sites told only in a sum; at most one."""
    floors: tuple[FloorMeasured, ...]
    pictures: tuple[PictureReleased, ...]
    files: FilesRead
    alarms: tuple[Alarm, ...]
    unreadable: tuple[UnreadableLine, ...]
    """The first ones; `summary.n_unreadable` counts all."""
    overhead: Overhead | None = None
    """Of the finished rounds of all methods: what was not training. None before there is one."""
