"""Before the first round: who is there, what do they have, and one plan that all agree on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TypeVar

from common.codec import content_hash, read_json, record, write_json
from common.config import RunConfig
from common.errors import FederationError
from common.fingerprint import empty, merge_all
from common.messages import Measured, MeasureTask, PrepareTask
from common.plan import Plan, three_d
from common.planner import plan_run
from common.task import Task
from server.events import EventLog, Note, PlanMade, SiteJoined
from server.exact_sum import MAX_CASES
from server.run_folder import RunFolder
from server.sites import Answers, Failure, Reply, Sites

T = TypeVar("T")


@record
class CohortRecord:
    """Who takes part and with which data; a resumed run has the same sites with the same data."""

    training: dict[str, str]
    """Hash of the fingerprint by site."""
    held_out: dict[str, str]


@dataclass(frozen=True)
class Cohort:
    """The sites of a run, by role, in name order."""

    training: dict[str, Measured]
    held_out: dict[str, Measured]

    @property
    def everyone(self) -> tuple[str, ...]:
        """All names."""
        return tuple(sorted({*self.training, *self.held_out}))


def join(sites: Sites, config: RunConfig, task: Task, folder: RunFolder, log: EventLog) -> Cohort:
    """Wait for the sites and let them describe their data.

    Raises:
        FederationError: when a site cannot describe its data, or too few or none of a role came.
    """
    config.check_task(task)
    federation = config.federation
    kept = read_json(CohortRecord, folder.cohort) if folder.cohort.exists() else None
    n_sites = federation.min_sites + len(federation.held_out)
    if kept is not None:
        n_sites = len(kept.training) + len(kept.held_out)
    asked = MeasureTask(run=folder.name, task=task)
    answers = sites.measure(asked, n_sites, federation.join_timeout_s)
    measured = {reply.site: reply.value for reply in _all_of(answers, "describe its data")}
    held_out = {name: measured[name] for name in sorted(measured) if name in federation.held_out}
    training = {name: measured[name] for name in sorted(measured) if name not in held_out}
    if missing := sorted(set(federation.held_out) - set(held_out)):
        raise FederationError(f"held-out sites {missing}: expected, did not connect")
    if len(training) < federation.min_sites:
        raise FederationError(
            f"training sites: expected at least {federation.min_sites}, found {len(training)}"
        )
    n_cases = sum(value.fingerprint.n_cases for value in training.values())
    if n_cases > MAX_CASES:
        raise FederationError(f"training cases: expected at most {MAX_CASES}, found {n_cases}")
    cohort = Cohort(training, held_out)
    cohort = _same_as_before(cohort, kept) if kept else cohort
    write_json(folder.cohort, _recorded(cohort))
    measured = {name: measured[name] for name in cohort.everyone}
    _require_one_version(measured)
    for name, value in measured.items():
        role = "held-out" if name in held_out else "training"
        log.append(SiteJoined(site=name, role=role, n_cases=value.fingerprint.n_cases))
    return cohort


def agree(
    sites: Sites,
    cohort: Cohort,
    config: RunConfig,
    task: Task,
    folder: RunFolder,
    log: EventLog,
) -> Plan:
    """Plan from the training sites' merged fingerprint and have every site plan the same.

    Held-out sites do not influence the plan: they take no part in training.

    Raises:
        ConfigError: when sites describe different tasks (it says who has what).
        FederationError: when a site refuses; a difference of plans is never passed over.
    """
    everyone = {**cohort.training, **cohort.held_out}
    described = {name: value.fingerprint for name, value in everyone.items()}
    merge_all({"coordinator": empty(task), **described})  # refuses, with who has what
    fingerprint = merge_all({name: described[name] for name in cohort.training})
    plan = plan_run(fingerprint, config)
    three_d(plan, config.model.configuration)  # fails before any site prepares its data
    if folder.plan.exists() and (old := read_json(Plan, folder.plan)).hash != plan.hash:
        raise FederationError(
            f"{folder.plan}: expected the plan of this run, {old.hash}, planned {plan.hash}"
        )
    write_json(folder.plan, plan)
    terms = PrepareTask(
        run=folder.name,
        task=task,
        config=replace(config, task=task.name, simulation=None),  # no paths of this machine
        fingerprint=fingerprint,
        plan_hash=plan.hash,
    )
    for reply in _all_of(sites.prepare(terms, cohort.everyone), "agree on the plan"):
        if reply.value.plan_hash != plan.hash:
            raise FederationError(f"{reply.site}: agreed to {reply.value.plan_hash}")
    log.append(PlanMade(plan_hash=plan.hash, n_cases=fingerprint.n_cases, limits=plan.limits))
    if config.model.norm != "batch":
        text = (
            f"batch_norm = {config.model.batch_norm!r} has no effect: norm is {config.model.norm}"
        )
        log.append(Note(text=text))
    return plan


def _recorded(cohort: Cohort) -> CohortRecord:
    def hashes(sites: Mapping[str, Measured]) -> dict[str, str]:
        return {name: content_hash(value.fingerprint) for name, value in sites.items()}

    return CohortRecord(training=hashes(cohort.training), held_out=hashes(cohort.held_out))


def _same_as_before(cohort: Cohort, kept: CohortRecord) -> Cohort:
    """Return the sites that the run began with.

    Raises:
        FederationError: when one is missing, or its data changed.
    """
    now = _recorded(cohort)
    before, found = {**kept.training, **kept.held_out}, {**now.training, **now.held_out}
    if missing := sorted(set(before) - set(found)):
        raise FederationError(f"resume: expected the sites {missing}, which are not connected")
    if changed := sorted(name for name in before if before[name] != found[name]):
        raise FederationError(f"resume: the data of {changed} changed since the run began")
    return Cohort(
        {name: cohort.training[name] for name in kept.training},
        {name: cohort.held_out[name] for name in kept.held_out},
    )


def _require_one_version(measured: Mapping[str, Measured]) -> None:
    ours = version("consilium")
    others = {name: value.version for name, value in measured.items() if value.version != ours}
    if others:
        raise FederationError(f"expected consilium {ours} at every site, found {others}")


def _all_of(answers: Answers[T], what: str) -> list[Reply[T]]:
    """Return all replies; before training, every failure is a reason to stop."""
    collected = list(answers)
    failures = [answer for answer in collected if isinstance(answer, Failure)]
    if failures:
        lines = [f"{f.site} could not {what}: {f.code} ({f.reason})" for f in failures]
        raise FederationError("\n".join(lines))
    return [answer for answer in collected if isinstance(answer, Reply)]
