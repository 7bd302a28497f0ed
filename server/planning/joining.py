"""Before the first round: who is there, and what do they have."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version

from common.codec import read_json, write_json
from common.config import RunConfig
from common.errors import ConfigError, FederationError
from common.federation import Federation
from common.messages import Measured, MeasureTask
from common.task import Task
from server.event_log import EventLog
from server.events import SiteJoined, SiteLeft
from server.exact_sum import MAX_CASES
from server.planning.cohort import (
    NO_CHANGES,
    Changes,
    Cohort,
    CohortRecord,
    check_changes,
    expected_sites,
    recorded,
    require_one_task,
    resumed,
)
from server.planning.masked_sum import secure_fingerprint
from server.run_folder import RunFolder
from server.sites import Sites, all_of


def join(
    sites: Sites,
    config: RunConfig,
    task: Task,
    folder: RunFolder,
    log: EventLog,
    changes: Changes = NO_CHANGES,
) -> Cohort:
    """Wait for the sites and let them describe their data.

    Args:
        sites: how they are reached.
        config: of the run.
        task: of the run.
        folder: of the run.
        log: of the run.
        changes: of the sites of a resumed run.

    Raises:
        FederationError: when a site cannot describe its data, or too few or none of a role came.
        ConfigError: when sites describe different tasks (it says who has what), or lack what the
            configuration needs of them.
    """
    config.check_task(task)
    federation = config.federation
    kept = read_json(CohortRecord, folder.cohort) if folder.cohort.exists() else None
    check_changes(changes, kept, federation)
    n_sites = federation.min_sites + len(federation.held_out)
    if kept is not None:
        n_sites = len(expected_sites(kept, changes)) + len(kept.held_out)
    asked = MeasureTask(run=folder.name, task=task)
    answers = sites.measure(asked, n_sites, federation.join_timeout_s)
    measured = {reply.site: reply.value for reply in all_of(answers, "describe its data")}
    held_out = {name: measured[name] for name in sorted(measured) if name in federation.held_out}
    training = {name: measured[name] for name in sorted(measured) if name not in held_out}
    _require_roles(federation, training, held_out)
    memory_gb = min((m.memory_gb for m in training.values() if m.memory_gb), default=None)
    cohort = Cohort(training, held_out, memory_gb)
    cohort = resumed(cohort, kept, changes) if kept else cohort
    _require_company(cohort.held_out)
    measured = {name: measured[name] for name in cohort.everyone}
    _require_one_version(measured)
    require_one_task(cohort, task)
    cohort = _with_unseen(sites, cohort, task, folder.name, log)
    most = sum(cohort.most_cases(site) for site in cohort.training)  # what they could claim later
    if most > MAX_CASES:
        raise FederationError(f"training cases: expected at most {MAX_CASES}, found {most}")
    write_json(folder.cohort, recorded(cohort))
    for name in sorted(set(cohort.left) - set(kept.left if kept else ())):
        log.append(SiteLeft(site=name))
    for name, value in measured.items():
        role = "held-out" if name in held_out else "training"
        log.append(SiteJoined(site=name, role=role, n_cases=value.n_cases))
    return cohort


def _require_roles(
    federation: Federation, training: Mapping[str, Measured], held_out: Mapping[str, Measured]
) -> None:
    """Demand the sites, and of them the numbers, that the configuration cannot do without."""
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
    masked = sorted(name for name, value in training.items() if value.n_cases is None)
    if federation.min_case_share is not None and masked:
        raise ConfigError(
            "federation.min_case_share: expected sites that tell how many cases they have, "
            f"found {', '.join(masked)}"
        )


def _require_company(held_out: Mapping[str, Measured]) -> None:
    """Demand as many held-out sites with masked metrics as each of them wants in their sum."""
    wanted = {name: value.metrics_min_sites or 0 for name, value in held_out.items()}
    masking = sorted(name for name, fewest in wanted.items() if fewest)
    for name in masking:
        if wanted[name] > len(masking):
            raise FederationError(
                f"held-out sites whose metrics are seen only as a sum: {name} asks for at least "
                f"{wanted[name]}, found {len(masking)}: {', '.join(masking)}"
            )


def _with_unseen(sites: Sites, cohort: Cohort, task: Task, run: str, log: EventLog) -> Cohort:
    """Return the cohort with the sum of the fingerprints that are not seen, if there are any.

    Raises:
        FederationError: when there is no sum.
    """
    unseen = {name: value for name, value in cohort.training.items() if value.secure_sum}
    if not unseen or cohort.secure_sum is not None:
        return cohort
    return replace(cohort, secure_sum=secure_fingerprint(sites, unseen, task, run, log))


def _require_one_version(measured: Mapping[str, Measured]) -> None:
    ours = version("consilium")
    others = {name: value.version for name, value in measured.items() if value.version != ours}
    if others:
        raise FederationError(f"expected consilium {ours} at every site, found {others}")
