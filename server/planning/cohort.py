"""Who takes part in a run, what is written down of it, and who is there after a resumption."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.codec import content_hash, record
from common.errors import ConfigError, FederationError
from common.federation import Federation, SiteName
from common.messages import Measured
from common.planning.fingerprint import Fingerprint, empty, merge_all
from common.task import Task

FIXED_SITES = ("local-only", "feddyn")
"""Methods whose state is made for the sites that begin."""


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
    planned_from: Fingerprint | None = None
    """Of the training sites that the run began with; who comes or goes later changes no plan."""
    left: tuple[SiteName, ...] = ()
    """Training sites that went for ever."""


@dataclass(frozen=True)
class Cohort:
    """The sites of a run, by role, in name order."""

    training: dict[str, Measured]
    held_out: dict[str, Measured]
    memory_gb: float | None = None
    """Of the smallest accelerator that trains; None when all sites train on the CPU."""
    secure_sum: Fingerprint | None = None
    """Of the training sites whose own fingerprints are not seen; None when there are none."""
    planned_from: Fingerprint | None = None
    """As in `CohortRecord`; None before the run has begun."""
    left: tuple[str, ...] = ()

    @property
    def everyone(self) -> tuple[str, ...]:
        """All names."""
        return tuple(sorted({*self.training, *self.held_out}))

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint to plan from: what the run began with."""
        if self.planned_from is not None:
            return self.planned_from
        named = {name: value.fingerprint for name, value in self.training.items()}
        return merge_all(named if self.secure_sum is None else {**named, "": self.secure_sum})

    def most_cases(self, site: str) -> int:
        """Return how many cases a training site has; if it does not tell, all that are unseen."""
        told, unseen = self.training[site].n_cases, self.secure_sum
        return told if told is not None else unseen.n_cases if unseen is not None else 0


@dataclass(frozen=True)
class Changes:
    """Who comes to a resumed run and who goes for ever; its lead says so."""

    admit: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


NO_CHANGES = Changes()


def recorded(cohort: Cohort) -> CohortRecord:
    """Return what a resumption has to know."""
    return CohortRecord(
        training=_digests(cohort.training),
        held_out=_digests(cohort.held_out),
        memory_gb=cohort.memory_gb,
        secure_sum=cohort.secure_sum,
        planned_from=cohort.fingerprint,
        left=cohort.left,
    )


def require_one_task(cohort: Cohort, task: Task) -> None:
    """Demand that all sites describe the coordinator's task.

    Raises:
        ConfigError: when they do not; it says who has what.
    """
    described = {name: value.fingerprint for name, value in cohort.training.items()}
    described |= {name: value.fingerprint for name, value in cohort.held_out.items()}
    merge_all({"coordinator": empty(task), **described})


def check_changes(changes: Changes, kept: CohortRecord | None, federation: Federation) -> None:
    """Demand changes that a run can have.

    Raises:
        ConfigError: for a run that begins, a site that is not there to go, or a site that comes to
            methods whose state is made for those that began.
    """
    if kept is None:
        if changes.admit or changes.without:
            raise ConfigError("admit, without: expected for a run that is resumed, found a new one")
        return
    if unknown := sorted(set(changes.without) - {*kept.training, *kept.left}):
        raise ConfigError(
            f"without: expected training sites of the run, {', '.join(kept.training)}; "
            f"found {', '.join(unknown)}"
        )
    fixed = [method for method in federation.methods if method in FIXED_SITES]
    if fixed and set(changes.admit) - set(kept.training):
        raise ConfigError(f"admit: the state of {', '.join(fixed)} has no place for another site")


def expected_sites(kept: CohortRecord, changes: Changes) -> tuple[str, ...]:
    """Return the training sites of a resumed run, in name order."""
    return tuple(sorted({*kept.training, *changes.admit} - set(changes.without)))


def resumed(cohort: Cohort, kept: CohortRecord, changes: Changes) -> Cohort:
    """Return the sites that the run began with, less those that left, and those that come.

    Args:
        cohort: all sites that are connected.
        kept: what the run knows of its sites.
        changes: who comes and goes.

    Raises:
        FederationError: when one is missing, its data changed, or it cannot train by the plan.
    """
    before = {**kept.training, **kept.held_out}
    found = _digests({**cohort.training, **cohort.held_out})
    training = expected_sites(kept, changes)
    if missing := sorted({*training, *kept.held_out} - set(found)):
        raise FederationError(
            f"resume: expected the sites {missing}, which are not connected; a training site can "
            "be left out for ever (`without`)"
        )
    if changed := sorted(
        name for name in {*training, *kept.held_out} & set(before) if before[name] != found[name]
    ):
        raise FederationError(f"resume: the data of {changed} changed since the run began")
    for name in sorted(set(training) - set(before)):
        _require_fit(name, cohort.training[name], kept)
    return Cohort(
        {name: cohort.training[name] for name in training},
        {name: cohort.held_out[name] for name in kept.held_out},
        kept.memory_gb,
        kept.secure_sum,
        kept.planned_from,
        tuple(sorted({*kept.left, *changes.without} - set(changes.admit))),
    )


def _require_fit(name: str, found: Measured, kept: CohortRecord) -> None:
    """Demand a newcomer that shows its counts and has the memory of the plan."""
    if kept.planned_from is None:
        raise FederationError(f"{name} cannot join: an older version began this run")
    if found.secure_sum is not None:
        raise FederationError(f"{name} cannot join: the masked sum was made without it")
    if found.memory_gb is not None and found.memory_gb < (kept.memory_gb or 0.0):
        raise FederationError(
            f"{name} cannot join: the plan is for {kept.memory_gb:g} GB, "
            f"it has {found.memory_gb:g} GB"
        )


def _digests(sites: Mapping[str, Measured]) -> dict[str, str]:
    """Return the hash of every site's fingerprint; where it is not seen, the site's own."""
    return {
        name: value.secure_sum.data_digest if value.secure_sum else content_hash(value.fingerprint)
        for name, value in sites.items()
    }
