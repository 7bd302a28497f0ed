"""What steps after the network would do to a site's validation cases, as sums over all of them.

The coordinator asks several times, with longer chains of steps; what the network predicts is kept
at the site between two questions about the same weights.
"""

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from client.agreement import entries, split
from client.first_stage import network_input
from client.held_out import reference_of
from client.permission import permitted_agreement
from client.prediction.segment import segment
from client.rounds import network_after
from client.scoring.postprocess_sums import LabelledCase, validation_sums
from client.site import Agreement, SiteConfig
from common.axes import LabelMap, Weights
from common.errors import DataError, PolicyError
from common.evaluation.postprocess_choice import ValidationSums
from common.files import write_atomically
from common.messages import PostprocessTask
from common.packing import weights_digest


def try_steps(site: SiteConfig, task: PostprocessTask, weights: Weights) -> ValidationSums:
    """Apply every candidate to the predictions of the validation cases and add up the scores.

    Raises:
        PolicyError: when the site's policy releases nothing of its validation cases, or they are
            too few for a sum.
        DataError: when the site never trained, so that it has no statistics to predict with.
    """
    policy = site.policy
    if not policy.validation_means:
        raise PolicyError(
            "policy.validation_means: this site says nothing of validation cases", "metrics"
        )
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    return validation_sums(
        _predicted(site, agreement, task, weights),
        task.candidates,
        agreement.terms.task,
        hd95=agreement.terms.config.evaluation.hd95,
        min_cases=1 if policy.metrics == "cases" else policy.min_cases_per_aggregate,
    )


def _predicted(
    site: SiteConfig, agreement: Agreement, task: PostprocessTask, weights: Weights
) -> Iterator[LabelledCase]:
    """Yield reference and prediction of every validation case, one at a time."""
    _, cases = split(site, agreement)
    network, device, ready = network_after(site, agreement, task.method, task.round, weights)
    if not ready:
        raise DataError("validation: expected batch-norm statistics of this site, found none")
    kept = _folder(site, task, weights)
    for case, entry in zip(cases, entries(site, agreement, cases), strict=True):
        reference, spacing_mm = reference_of(case, agreement.terms.task)

        def predict(entry=entry) -> LabelMap:  # type: ignore[no-untyped-def]
            image = network_input(entry, agreement)
            return segment(image, entry.meta.geometry, network, agreement, device)

        yield reference, _once(kept / f"{entry.folder.name}.npz", predict), spacing_mm


def _folder(site: SiteConfig, task: PostprocessTask, weights: Weights) -> Path:
    """Return where predictions by these weights lie; those by others go."""
    parent = site.run_folder(task.run) / "validation"
    folder = parent / f"{task.method}-{task.round}-{weights_digest(weights)}"
    for other in parent.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    return folder


def _once(path: Path, predict: Callable[[], LabelMap]) -> LabelMap:
    """Return the labels in a file, which is made if it is not there."""
    if not path.exists():
        content = io.BytesIO()
        np.savez_compressed(content, labels=predict())
        write_atomically(path, content.getvalue())
    labels: LabelMap = np.load(path, allow_pickle=False)["labels"]
    return labels
