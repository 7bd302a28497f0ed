"""What a held-out site does: calibrate, predict, score; and the learning-free floor."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from client.agreement import entries, split
from client.caching.cache import CacheEntry
from client.dataset.nifti import read_labels, read_scan
from client.device import Device
from client.first_stage import network_input
from client.permission import permitted_agreement
from client.prediction.segment import segment
from client.preparation.preprocess import nonzero_box
from client.pseudonyms import numbers_of
from client.rank_models import may_aggregate
from client.scoring.kept_scores import KeptScores, keep_scores, word_of_data
from client.site import Agreement, SiteConfig
from client.statistics import calibrate_on, received_network
from common.axes import LabelMap, Mask, SpacingMm, Weights
from common.case import Case
from common.codec import content_hash
from common.errors import DataError, PolicyError
from common.evaluation.floor import best_threshold_floor
from common.evaluation.metrics import RegionScore, score_case
from common.evaluation.postprocess import Chain, post_processed
from common.messages import CaseScore, FloorMeasured, FloorTask, Picture, Tested, TestTask
from common.packing import weights_digest
from common.task import Floor, Task

_Model: TypeAlias = tuple[nn.Module, Agreement, Device]
FLOOR_THRESHOLDS = np.linspace(0.5, 0.995, 100)  # of the equalised histogram


@dataclass(frozen=True)
class _Subject:
    """A case of this site beside its prepared image, and what is done after the network."""

    case: Case
    entry: CacheEntry
    steps: Chain

    def labels(self, model: _Model) -> LabelMap:
        return self.labels_and_change(model)[0]

    def labels_and_change(self, model: _Model) -> tuple[LabelMap, bool]:
        """Return the labels, and whether the steps changed any."""
        _, agreement, _ = model
        image = network_input(self.entry, agreement)
        predicted = segment(image, self.entry.meta.geometry, *model)
        labels = post_processed(predicted, self.steps, self.entry.meta.geometry.spacing_mm)
        return labels, not np.array_equal(labels, predicted)


@dataclass(frozen=True)
class _Result:
    """What the model scored on one case, and which regions its reference lacks."""

    scores: dict[str, RegionScore]
    lacks: dict[str, bool]
    is_changed: bool
    """Whether post-processing changed any voxel."""


def score_model(site: SiteConfig, task: TestTask, weights: Weights) -> Tested:
    """Predict and score all cases of this site with a final model; keep the scores here.

    One case is in memory at a time; the few that are drawn are predicted again for it.

    Returns:
        As much as the site's policy releases: the metrics of numbered cases, or none of them.

    Raises:
        PolicyError: when the site's policy releases no metrics in any form.
    """
    level = site.policy.metrics
    if level == "none":
        raise PolicyError("policy.metrics: this site releases no metrics", "metrics")
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    network, device = received_network(agreement, weights)
    cases, _ = split(site, agreement)
    word = word_of_data(site, task.run, cases)
    cached = entries(site, agreement, cases)
    images = [lambda entry=entry: network_input(entry, agreement) for entry in cached]
    note = calibrate_on(images, site.name, agreement, network, device)
    model = (network, agreement, device)
    subjects = [
        _Subject(case, entry, task.postprocessing)
        for case, entry in zip(cases, cached, strict=True)
    ]
    results = [_result(subject, model) for subject in subjects]
    tested = content_hash([weights_digest(weights), task.postprocessing])
    keep_scores(site, task.run, task.method, _kept(word, cases, results, tested))
    scores = [result.scores for result in results] if level == "cases" else []
    numbers = numbers_of(site, task.run, [case.name for case in cases]) if scores else {}
    wanted = task.pictures and site.policy.pictures  # which the policy has only at that level
    return Tested(
        metrics=level,
        n_cases=None if level == "secure-sum" else len(cases),
        data=word,
        scores=tuple(_case_scores(dict(zip(numbers.values(), scores, strict=True)))),
        pictures=_pictures(subjects, scores, model) if wanted else (),
        note=_with_changes(note, site, task, results),
    )


def measure_floor(site: SiteConfig, task: FloorTask) -> FloorMeasured:
    """Return what the task's learning-free baseline reaches on this site's cases."""
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    if agreement.terms.task.floor is None:
        raise PolicyError(f"task {agreement.terms.task.name}: has no learning-free floor", "task")
    cases, _ = split(site, agreement)
    if not may_aggregate(site, len(cases)):
        raise PolicyError(
            f"policy.metrics: {site.policy.metrics!r} releases no mean Dice", "metrics"
        )
    read = [_floor_case(case, agreement.terms.task, agreement.terms.task.floor) for case in cases]
    images, references = zip(*read, strict=True)
    best = best_threshold_floor(images, references, FLOOR_THRESHOLDS.tolist())
    return FloorMeasured(mean_dice=best.mean_dice, threshold=best.threshold)


def _floor_case(case: Case, task: Task, floor: Floor) -> tuple[NDArray[np.float32], Mask]:
    """Return the floor's channel and region, cut to the brain; copies, to free the rest."""
    scan, (labels, _) = read_scan(case, len(task.channels)), reference_of(case, task)
    box = nonzero_box(scan.image)
    region = np.isin(labels, task.regions[floor.region])
    outside = np.count_nonzero(region) - np.count_nonzero(region[box])
    if outside:  # a label outside the brain must count against the threshold
        box = (slice(None), slice(None), slice(None))
    return scan.image[task.channels.index(floor.channel)][box].copy(), region[box].copy()


def _result(subject: _Subject, model: _Model) -> _Result:
    _, agreement, _ = model
    task = agreement.terms.task
    reference, spacing_mm = reference_of(subject.case, task)
    hd95 = agreement.terms.config.evaluation.hd95
    labels, is_changed = subject.labels_and_change(model)
    scores = score_case(reference, labels, spacing_mm, task, hd95=hd95)
    found = set(np.unique(reference).tolist())
    lacks = {region: found.isdisjoint(values) for region, values in task.regions.items()}
    return _Result(scores, lacks, is_changed)


def _with_changes(note: str, site: SiteConfig, task: TestTask, results: Sequence[_Result]) -> str:
    """Add what post-processing did, where the policy releases aggregates."""
    if not task.postprocessing or not may_aggregate(site, len(results)):
        return note
    n_changed = sum(result.is_changed for result in results)
    return f"{note}; post-processing changed {n_changed} of {len(results)} cases"


def _kept(word: str, cases: Sequence[Case], results: Sequence[_Result], tested: str) -> KeptScores:
    return KeptScores(
        data=word,
        tested=tested,
        scores={case.name: result.scores for case, result in zip(cases, results, strict=True)},
        n_empty_references={
            region: sum(result.lacks[region] for result in results) for region in results[0].lacks
        },
    )


def _case_scores(results: Mapping[int, dict[str, RegionScore]]) -> Iterator[CaseScore]:
    """Give the scores in the order of the cases' numbers: the coordinator learns no name."""
    for number, result in sorted(results.items()):
        for region, score in result.items():
            yield CaseScore(case=number, region=region, **vars(score))


def _pictures(
    subjects: Sequence[_Subject], results: Sequence[dict[str, RegionScore]], model: _Model
) -> tuple[Picture, ...]:
    """Draw the worst, the median and the best case by mean Dice."""
    dice = [float(np.mean([score.dice for score in result.values()])) for result in results]
    order = sorted(range(len(dice)), key=dice.__getitem__)
    chosen = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    return tuple(
        Picture(kind=kind, dice=dice[index], png_base64=_drawn(subjects[index], model))  # type: ignore[arg-type]
        for kind, index in chosen.items()
    )


def _drawn(subject: _Subject, model: _Model) -> str:
    """Return an overlay picture as PNG in base64."""
    from client.scoring.pictures import overlay_png  # draws with matplotlib: a second to import

    _, agreement, _ = model
    task = agreement.terms.task
    channel = task.channels.index(task.floor.channel) if task.floor else 0
    reference, spacing_mm = reference_of(subject.case, task)
    image = read_scan(subject.case, len(task.channels)).image[channel]
    png = overlay_png(image, reference, subject.labels(model), task, spacing_mm=spacing_mm)
    return base64.b64encode(png).decode()


def reference_of(case: Case, task: Task) -> tuple[LabelMap, SpacingMm]:
    """Return a case's reference segmentation, axes (z, y, x), and its voxel size.

    Raises:
        DataError: when it has none.
    """
    if case.label is None:
        raise DataError(f"{case.name}: expected a reference segmentation, found none")
    labels, grid = read_labels(case.label, task.label_mapping)
    return labels, grid.spacing_mm
