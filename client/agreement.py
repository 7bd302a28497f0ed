"""Before training: measure the site's data, plan again, compare, fill the cache."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from client.cache import CacheEntry, prepare_dataset
from client.layouts import describe
from client.measure import measure
from client.site import Agreement, SiteConfig, save_agreement
from common.case import Case, DatasetDescription
from common.codec import content_hash, read_json, record, write_json
from common.errors import PolicyError
from common.fingerprint import Fingerprint
from common.messages import Measured, MeasureTask, Prepared, PrepareTask
from common.planner import plan
from common.random import step_rng
from common.task import Task


class PlanDiffersError(PolicyError):
    """The site's own planning does not give the coordinator's plan; it does not train."""


@record
class _KeptFingerprint:
    key: str
    fingerprint: Fingerprint


def measure_site(site: SiteConfig, task: MeasureTask) -> Measured:
    """Return the site's fingerprint; measured once, then kept while the files are the same."""
    description = dataset(site, task.task)
    path = site.state_folder / "fingerprint.json"
    key = _files_key(description, task.task)
    kept = read_json(_KeptFingerprint, path) if path.exists() else None
    if kept is None or kept.key != key:
        kept = _KeptFingerprint(key=key, fingerprint=measure(description, task.task))
        write_json(path, kept)
    return Measured(site=site.name, fingerprint=kept.fingerprint, version=version("consilium"))


def prepare_site(site: SiteConfig, task: PrepareTask) -> Prepared:
    """Plan from the merged fingerprint and fill the cache with this site's cases.

    Raises:
        PlanDiffersError: when the plan is not the coordinator's; both hashes are named.
    """
    planning, model = task.config.planning, task.config.model
    own = plan(
        task.fingerprint,
        memory_gb=planning.memory_gb,
        rules=planning.rules,
        base_features=model.base_features,
        max_batch_size=planning.max_batch_size,
    )
    if own.hash != task.plan_hash:
        raise PlanDiffersError(f"plan: expected {task.plan_hash}, planned {own.hash}")
    agreement = Agreement(terms=task, plan=own)
    save_agreement(site, agreement)
    training, validation = split(site, agreement)
    entries(site, agreement, (*training, *validation))
    return Prepared(
        plan_hash=own.hash,
        n_training_cases=len(training),
        n_validation_cases=len(validation),
    )


def dataset(site: SiteConfig, task: Task) -> DatasetDescription:
    """Find the site's cases."""
    return describe(site.data_folder, task, site.cases)


def split(site: SiteConfig, agreement: Agreement) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Return (training, validation) cases; the same split in every round, process and method."""
    config = agreement.terms.config
    cases = dataset(site, agreement.terms.task).cases
    fraction = config.training.validation_fraction
    if site.name in config.federation.held_out or fraction == 0 or len(cases) < 2:
        return cases, ()
    n_validation = min(max(1, round(fraction * len(cases))), len(cases) - 1)
    rng = step_rng(config.federation.seed, site.name, 0, 0, "validation-split")
    chosen = frozenset(rng.permutation(len(cases))[:n_validation].tolist())
    training = tuple(case for index, case in enumerate(cases) if index not in chosen)
    return training, tuple(case for index, case in enumerate(cases) if index in chosen)


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
