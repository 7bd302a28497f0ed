"""Before the first round: who is there, and what do they have."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TypeVar

from common.codec import content_hash, read_json, record, write_json
from common.config import RunConfig
from common.errors import ConfigError, FederationError
from common.messages import Measured, MeasureTask
from common.planning.fingerprint import Fingerprint, empty, merge_all
from common.task import Task
from server.events import EventLog, SiteJoined
from server.exact_sum import MAX_CASES
from server.planning.masked_sum import secure_fingerprint
from server.run_folder import RunFolder
from server.sites import Sites, all_of

T = TypeVar("T")


@record
class CohortRecord:
    """Who takes part and with which data; a resumed run has the same sites with the same data."""

    training: dict[str, str]
    """Hash of the fingerprint by site; where it is not seen, the site's own keyed one."""
    held_out: dict[str, str]
    memory_gb: float | None = None
    """Of the smallest accelerator; one that is exchanged later does not change the plan."""
    secure_sum: Fingerprint | None = None
    """Sum of the fingerprints that were not seen; nobody is asked for it twice."""


@dataclass(frozen=True)
class Cohort:
    """The sites of a run, by role, in name order."""

    training: dict[str, Measured]
    held_out: dict[str, Measured]
    memory_gb: float | None = None
    """Of the smallest accelerator that trains; None when all sites train on the CPU."""
    secure_sum: Fingerprint | None = None
    """Of the training sites whose own fingerprints are not seen; None when there are none."""

    @property
    def everyone(self) -> tuple[str, ...]:
        """All names."""
        return tuple(sorted({*self.training, *self.held_out}))

    @property
    def fingerprint(self) -> Fingerprint:
        """The training sites' fingerprint: of those that are seen, and the sum of the others."""
        named = {name: value.fingerprint for name, value in self.training.items()}
        return merge_all(named if self.secure_sum is None else {**named, "": self.secure_sum})

    def most_cases(self, site: str) -> int:
        """Return how many cases a training site has; if it does not tell, all that are unseen."""
        told, unseen = self.training[site].n_cases, self.secure_sum
        return told if told is not None else unseen.n_cases if unseen is not None else 0


def join(sites: Sites, config: RunConfig, task: Task, folder: RunFolder, log: EventLog) -> Cohort:
    """Wait for the sites and let them describe their data.

    Raises:
        FederationError: when a site cannot describe its data, or too few or none of a role came.
        ConfigError: when the root site of the method trust is not among those that came.
    """
    config.check_task(task)
    federation = config.federation
    kept = read_json(CohortRecord, folder.cohort) if folder.cohort.exists() else None
    n_sites = federation.min_sites + len(federation.held_out)
    if kept is not None:
        n_sites = len(kept.training) + len(kept.held_out)
    asked = MeasureTask(run=folder.name, task=task)
    answers = sites.measure(asked, n_sites, federation.join_timeout_s)
    measured = {reply.site: reply.value for reply in all_of(answers, "describe its data")}
    held_out = {name: measured[name] for name in sorted(measured) if name in federation.held_out}
    training = {name: measured[name] for name in sorted(measured) if name not in held_out}
    if missing := sorted(set(federation.held_out) - set(held_out)):
        raise FederationError(f"held-out sites {missing}: expected, did not connect")
    if "trust" in federation.methods and federation.root_site not in training:
        raise ConfigError(
            f"federation.root_site: expected one of the training sites {', '.join(training)}, "
            f"found {federation.root_site!r}"
        )
    if len(training) < federation.min_sites:
        raise FederationError(
            f"training sites: expected at least {federation.min_sites}, found {len(training)}"
        )
    memory_gb = min((m.memory_gb for m in training.values() if m.memory_gb), default=None)
    cohort = Cohort(training, held_out, memory_gb)
    cohort = _same_as_before(cohort, kept) if kept else cohort
    measured = {name: measured[name] for name in cohort.everyone}
    _require_one_version(measured)
    cohort = _with_unseen(sites, cohort, task, folder.name, log)
    if (n_cases := _n_cases(cohort)) > MAX_CASES:
        raise FederationError(f"training cases: expected at most {MAX_CASES}, found {n_cases}")
    write_json(folder.cohort, _recorded(cohort))
    for name, value in measured.items():
        role = "held-out" if name in held_out else "training"
        log.append(SiteJoined(site=name, role=role, n_cases=value.n_cases))
    return cohort


def _with_unseen(sites: Sites, cohort: Cohort, task: Task, run: str, log: EventLog) -> Cohort:
    """Return the cohort with the sum of the fingerprints that are not seen, if there are any.

    Raises:
        ConfigError: when sites describe different tasks (it says who has what).
        FederationError: when there is no sum.
    """
    unseen = {name: value for name, value in cohort.training.items() if value.secure_sum}
    if not unseen or cohort.secure_sum is not None:
        return cohort
    everyone = {**cohort.training, **cohort.held_out}
    described = {name: value.fingerprint for name, value in everyone.items()}
    merge_all({"coordinator": empty(task), **described})
    return replace(cohort, secure_sum=secure_fingerprint(sites, unseen, task, run, log))


def _n_cases(cohort: Cohort) -> int:
    told = sum(value.n_cases or 0 for value in cohort.training.values())
    return told + (cohort.secure_sum.n_cases if cohort.secure_sum else 0)


def _recorded(cohort: Cohort) -> CohortRecord:
    def hashes(sites: Mapping[str, Measured]) -> dict[str, str]:
        return {
            name: value.secure_sum.data_digest
            if value.secure_sum
            else content_hash(value.fingerprint)
            for name, value in sites.items()
        }

    return CohortRecord(
        training=hashes(cohort.training),
        held_out=hashes(cohort.held_out),
        memory_gb=cohort.memory_gb,
        secure_sum=cohort.secure_sum,
    )


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
        kept.memory_gb,
        kept.secure_sum,
    )


def _require_one_version(measured: Mapping[str, Measured]) -> None:
    ours = version("consilium")
    others = {name: value.version for name, value in measured.items() if value.version != ours}
    if others:
        raise FederationError(f"expected consilium {ours} at every site, found {others}")
