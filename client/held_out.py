"""What a held-out site does: calibrate, predict, score; and the learning-free floor."""

import base64
from dataclasses import dataclass
from typing import Literal

import numpy as np

from client.agreement import dataset, entries
from client.nifti import read_labels, read_scan
from client.pictures import overlay_png
from client.segment import segment
from client.site import Agreement, SiteConfig, load_agreement
from client.statistics import calibrate_on, received_network
from common.axes import LabelMap, SpacingMm, Weights
from common.case import Case
from common.errors import DataError, PolicyError
from common.floor import best_threshold_floor
from common.messages import CaseScore, FloorMeasured, FloorTask, Picture, Tested, TestTask
from common.metrics import RegionScore, score_case
from common.task import Task, regions_of

EVERYTHING = (slice(None), slice(None), slice(None))
FLOOR_THRESHOLDS = np.linspace(0.5, 0.995, 100)  # of the equalised histogram


@dataclass(frozen=True)
class _Result:
    case: Case
    labels: LabelMap
    scores: dict[str, RegionScore]

    @property
    def mean_dice(self) -> float:
        return float(np.mean([score.dice for score in self.scores.values()]))


def test_model(site: SiteConfig, task: TestTask, weights: Weights) -> Tested:
    """Predict and score all cases of this site with a final model.

    Raises:
        PolicyError: when the site's policy does not release case scores.
    """
    if not site.policy.case_scores:
        raise PolicyError("policy.case_scores: this site releases no metrics of single cases")
    agreement = load_agreement(site, task.run, task.plan_hash)
    network, device = received_network(agreement, weights)
    cases = dataset(site, agreement.terms.task).cases
    prepared = entries(site, agreement, cases)
    images = [entry.image(EVERYTHING) for entry in prepared]
    note = calibrate_on(images, site.name, agreement, network, device)
    results = []
    for case, entry, image in zip(cases, prepared, images, strict=True):
        labels = segment(image, entry.meta.geometry, network, agreement, device)
        results.append(_scored(case, labels, agreement))
    scores = tuple(
        CaseScore(case=number, region=region, **vars(score))
        for number, result in enumerate(results, start=1)
        for region, score in result.scores.items()
    )
    wanted = task.pictures and site.policy.pictures
    pictures = _pictures(results, agreement.terms.task) if wanted else ()
    return Tested(scores=scores, pictures=pictures, note=note)


def measure_floor(site: SiteConfig, task: FloorTask) -> FloorMeasured:
    """Return what the task's learning-free baseline reaches on this site's cases."""
    floor = task.task.floor
    if floor is None:
        raise PolicyError(f"task {task.task.name}: has no learning-free floor")
    channel = task.task.channels.index(floor.channel)
    region = tuple(task.task.regions).index(floor.region)
    images, references = [], []
    for case in dataset(site, task.task).cases:
        labels, _ = _reference(case, task.task)
        images.append(read_scan(case, len(task.task.channels)).image[channel])
        references.append(regions_of(labels, task.task)[region])
    best = best_threshold_floor(images, references, FLOOR_THRESHOLDS.tolist())
    return FloorMeasured(mean_dice=best.mean_dice, threshold=best.threshold)


def _scored(case: Case, labels: LabelMap, agreement: Agreement) -> _Result:
    task = agreement.terms.task
    reference, spacing_mm = _reference(case, task)
    hd95 = agreement.terms.config.evaluation.hd95
    return _Result(case, labels, score_case(reference, labels, spacing_mm, task, hd95=hd95))


def _pictures(results: list[_Result], task: Task) -> tuple[Picture, ...]:
    order = sorted(results, key=lambda result: result.mean_dice)
    kinds: tuple[Literal["worst", "median", "best"], ...] = ("worst", "median", "best")
    chosen = (order[0], order[len(order) // 2], order[-1])
    return tuple(_picture(kind, r, task) for kind, r in zip(kinds, chosen, strict=True))


def _picture(kind: Literal["worst", "median", "best"], result: _Result, task: Task) -> Picture:
    channel = task.channels.index(task.floor.channel) if task.floor else 0
    reference, spacing_mm = _reference(result.case, task)
    image = read_scan(result.case, len(task.channels)).image[channel]
    png = overlay_png(image, reference, result.labels, task, spacing_mm=spacing_mm)
    text = base64.b64encode(png).decode()
    return Picture(kind=kind, dice=result.mean_dice, png_base64=text)


def _reference(case: Case, task: Task) -> tuple[LabelMap, SpacingMm]:
    if case.label is None:
        raise DataError(f"{case.name}: expected a reference segmentation, found none")
    labels, grid = read_labels(case.label, task.label_mapping)
    return labels, grid.spacing_mm
