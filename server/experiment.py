"""What stays the same over all rounds and methods of a run."""

from dataclasses import dataclass

from common.config import RunConfig
from common.planning.plan import Plan
from common.task import Task
from server.event_log import EventLog
from server.planning.cohort import Cohort
from server.run_folder import RunFolder
from server.sites import Sites


@dataclass(frozen=True)
class Experiment:
    """The agreed terms of a run, its sites, and where everything is written."""

    config: RunConfig
    task: Task
    plan: Plan
    cohort: Cohort
    folder: RunFolder
    sites: Sites
    log: EventLog
