"""Before training: measure the site's data, plan again, compare, fill the cache."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from client.caching.cache import CacheEntry
from client.caching.prepare_cases import prepare_dataset
from client.dataset.inspection import check
from client.dataset.layouts import describe
from client.device import accelerator_memory_gb
from client.fingerprint.measure import measure
from client.masking import data_digest, masked_counts
from client.permission import require_approval, require_cases, require_task, require_terms
from client.privacy.budget import require_whole_run
from client.privacy.patients import site_patients
from client.site import Agreement, SiteConfig, save_agreement, site_log
from common.axes import Weights
from common.case import Case, DatasetDescription
from common.codec import content_hash, read_json, record, write_json
from common.config import RunConfig
from common.errors import ConfigError, PolicyError
from common.messages import Measured, MeasureTask, Prepared, PrepareTask, SecureSum
from common.planning.edited_plan import defects
from common.planning.fingerprint import Fingerprint, empty
from common.planning.plan import Plan, sealed
from common.planning.planner import plan_run
from common.planning.release import released
from common.privacy.run_cost import noise_of
from common.random import step_rng
from common.task import Task


@record
class _KeptFingerprint:
    key: str
    fingerprint: Fingerprint


def measure_site(site: SiteConfig, task: MeasureTask) -> Measured | tuple[Measured, Weights]:
    """Return as much of the site's fingerprint as its policy lets out.

    Returns:
        The answer. Under the policy ``secure-sum`` it holds no count; only for a roster, the
        masked ones lie beside it.

    Raises:
        DataError: with every defect of every case; unsound data take no part.
        PolicyError: when the site has too few cases for a coarse release, or a roster is not
            what this site masks for.
    """
    measured, policy = _measured(site, task.task), site.policy
    if policy.fingerprint == "secure-sum":
        return _unseen(site, task, measured)
    if task.roster is not None:
        raise PolicyError(f"policy.fingerprint: {policy.fingerprint!r} masks nothing", "privacy")
    fingerprint = released(measured, policy.fingerprint, policy.min_cases_per_bin)
    return _described(site, fingerprint)


def _measured(site: SiteConfig, task: Task) -> Fingerprint:
    """Measure once, then keep at the site, as measured, while the files are the same."""
    require_task(site.policy, task)
    description = dataset(site, task)
    require_cases(site.policy, len(description.cases))
    path = site.state_folder / "fingerprint.json"
    key = _files_key(description, task)
    kept = _kept_fingerprint(path)
    if kept is None or kept.key != key:
        check(description, task)
        kept = _KeptFingerprint(key=key, fingerprint=measure(description, task))
        write_json(path, kept)
    return kept.fingerprint


def _unseen(
    site: SiteConfig, task: MeasureTask, measured: Fingerprint
) -> Measured | tuple[Measured, Weights]:
    """Describe the data without a count; the counts only as a part of a sum."""
    header = SecureSum(
        min_sites=site.policy.min_secure_sites,
        data_digest=data_digest(site, task.run, measured),
    )
    told = _described(site, empty(task.task), header)
    if task.roster is None:
        return told
    return told, masked_counts(site, task, measured)


def _described(
    site: SiteConfig, fingerprint: Fingerprint, secure_sum: SecureSum | None = None
) -> Measured:
    return Measured(
        site=site.name,
        fingerprint=fingerprint,
        version=version("consilium"),
        memory_gb=site.memory_gb or accelerator_memory_gb(),
        secure_sum=secure_sum,
        metrics_min_sites=site.policy.min_secure_sites if _masks_metrics(site) else None,
    )


def told_count(site: SiteConfig, config: RunConfig, n_cases: int) -> int:
    """Return a number of cases; 0 where the site's policy lets it out in a sum only."""
    is_held_out = site.name in config.federation.held_out
    is_hidden = _masks_metrics(site) if is_held_out else site.policy.fingerprint == "secure-sum"
    return 0 if is_hidden else n_cases


def _masks_metrics(site: SiteConfig) -> bool:
    return site.policy.metrics == "secure-sum"


def _kept_fingerprint(path: Path) -> _KeptFingerprint | None:
    """Return what was measured before; what another version wrote is measured again."""
    try:
        return read_json(_KeptFingerprint, path) if path.exists() else None
    except ConfigError:
        return None


def prepare_site(site: SiteConfig, task: PrepareTask) -> Prepared:
    """Plan from the merged fingerprint and fill the cache with this site's cases.

    Returns:
        The hash of the site's own plan. When that is not the coordinator's, nothing is agreed on
        or prepared, and without an agreement the site refuses to train.

    Raises:
        PolicyError: for what this site's policy does not allow.
    """
    require_terms(site, task)
    own = _own_plan(site, task)
    if own.hash != task.plan_hash:
        site_log(site).error("plan: expected %s, planned %s: refused", task.plan_hash, own.hash)
        return Prepared(plan_hash=own.hash, n_training_cases=0, n_validation_cases=0)
    if site.name in task.config.federation.held_out and site.policy.metrics == "none":
        raise PolicyError(
            "policy.metrics: a held-out site that releases none is of no use", "metrics"
        )
    require_approval(site, task)
    found = dataset(site, task.task).cases
    require_cases(site.policy, len(found))
    training, validation = _drawn_split(site, task.config, [case.name for case in found])
    agreement = Agreement(
        terms=task,
        plan=own,
        cases=training,
        validation_cases=validation,
        noise_multiplier=_noise(site, task.config),
    )
    if agreement.noise_multiplier is not None:
        require_whole_run(site, agreement)
    entries(site, agreement, found)
    save_agreement(site, agreement)
    return Prepared(
        plan_hash=own.hash,
        n_training_cases=told_count(site, task.config, len(training)),
        n_validation_cases=told_count(site, task.config, len(validation)),
    )


def _noise(site: SiteConfig, config: RunConfig) -> float | None:
    """Return the noise of a private run; None where nothing is trained, or without privacy."""
    if config.privacy is None or site.name in config.federation.held_out:
        return None
    return noise_of(config)


def _own_plan(site: SiteConfig, task: PrepareTask) -> Plan:
    """Plan as the coordinator should have, or take an edited plan if the policy allows that."""
    if task.edited_plan is None:
        return plan_run(task.fingerprint, task.config)
    if not site.policy.edited_plans:
        raise PolicyError(
            "policy.edited_plans: the coordinator's plan was changed by a person and does not "
            "follow from the fingerprints; expected true, found false",
            "plan",
        )
    found = defects(task.edited_plan)
    if task.edited_plan.channels != task.task.channels:
        found = (*found, f"channels: expected {task.task.channels}")
    if found:
        raise ConfigError("\n".join(f"edited plan: {line}" for line in found))
    return sealed(task.edited_plan)


def dataset(site: SiteConfig, task: Task) -> DatasetDescription:
    """Find the site's cases."""
    return describe(site.data_folder, task, site.cases)


def split(site: SiteConfig, agreement: Agreement) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Return (training or tested, validation) cases as they were agreed on.

    Raises:
        DataError: when one of them is no longer there.
    """
    names = {*agreement.cases, *agreement.validation_cases}
    cases = describe(site.data_folder, agreement.terms.task, names).cases
    training = tuple(case for case in cases if case.name in agreement.cases)
    return training, tuple(case for case in cases if case.name in agreement.validation_cases)


def _drawn_split(
    site: SiteConfig, config: RunConfig, names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw the patients whose cases validate; a held-out site tests all of its cases."""
    fraction, patients = config.training.validation_fraction, site_patients(site, names)
    if site.name in config.federation.held_out or fraction == 0 or len(patients) < 2:
        return tuple(names), ()
    n_validation = min(max(1, round(fraction * len(patients))), len(patients) - 1)
    rng = step_rng(config.federation.seed, site.name, 0, 0, "validation-split")
    drawn = rng.permutation(len(patients))[:n_validation].tolist()
    chosen = frozenset(name for index in drawn for name in patients[index])
    training = tuple(name for name in names if name not in chosen)
    return training, tuple(name for name in names if name in chosen)


def entries(
    site: SiteConfig, agreement: Agreement, cases: Sequence[Case]
) -> tuple[CacheEntry, ...]:
    """Return the cache entries of cases, preparing those that are not there yet."""
    folder = site.state_folder / "cache"
    return prepare_dataset(
        cases, agreement.terms.task, agreement.plan, agreement.configuration, folder
    )


def _files_key(description: DatasetDescription, task: Task) -> str:
    """Identify the files by path, size and time of change, without reading them."""
    files = [path for case in description.cases for path in (*case.images, case.label) if path]
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return content_hash([content_hash(task), np.array(facts, dtype=object).tolist()])
