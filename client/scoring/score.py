"""Score a folder of predictions against a folder of references, several cases at once.

The result does not depend on how many cases are scored at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from client.dataset.layouts import DATA_SET
from client.dataset.nifti import Grid, read_labels, same_grid
from client.parallel import in_order
from client.scoring.pairs import Pair, find_pairs
from common.axes import LabelMap
from common.errors import DataError, Defect
from common.evaluation.empty_rules import BRATS_RULES, EmptyRules, RegionScore
from common.evaluation.further_metrics import (
    BASIC_ONLY,
    FurtherMetric,
    FurtherMetrics,
    further_scores,
    further_scores_of_missing,
)
from common.evaluation.metrics import RegionPair, region_pairs, score_pair
from common.evaluation.scores import FurtherTable, ScoreTable, ScoringDefinition, definition_of
from common.evaluation.surface import Hd95
from common.task import Task

MM3_PER_ML = 1000


@dataclass(frozen=True)
class Scoring:
    """What is computed."""

    task: Task
    """Names regions and labels; its label mapping applies to both folders."""
    hd95: Hd95
    rules: EmptyRules = BRATS_RULES
    """What empty regions and missing cases score."""
    further: FurtherMetrics = BASIC_ONLY

    @property
    def definition(self) -> ScoringDefinition:
        """What the numbers mean, for the file of scores."""
        return definition_of(self.task.name, self.hd95, self.rules, self.further)

    @property
    def words_for_missing(self) -> str:
        """What a case without a usable prediction scores."""
        score = self.rules.missing_case
        return f"Dice {score.dice:g} and HD95 {score.hd95:g} mm"


@dataclass(frozen=True)
class RegionResult:
    """One region of one case. Never leaves the site but as its policy allows."""

    score: RegionScore
    further: dict[FurtherMetric, float]
    reference_ml: float
    prediction_ml: float | None
    """None where there was no usable prediction."""


@dataclass(frozen=True)
class FolderScores:
    """The scores of a folder. Never leaves the site but as its policy allows."""

    results: Mapping[str, Mapping[str, RegionResult]]
    """By case, sorted, and region, in the task's order."""
    missing: tuple[str, ...]
    """Cases without a prediction; they have the score of a missing case."""
    unusable: tuple[Defect, ...]
    """What was wrong with predictions that were scored as missing."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why cases have the score of a missing case, one line each."""
        return (*(f"{case}: no prediction" for case in self.missing), *map(str, self.unusable))

    @property
    def table(self) -> ScoreTable:
        """The basic four."""
        return {
            case: {region: result.score for region, result in regions.items()}
            for case, regions in self.results.items()
        }

    @property
    def further(self) -> FurtherTable:
        """The further metrics; empty mappings where none were asked for."""
        return {
            case: {region: result.further for region, result in regions.items()}
            for case, regions in self.results.items()
        }


@dataclass(frozen=True)
class Outcome:
    """What became of one pair. Never leaves the site."""

    case: str
    regions: dict[str, RegionResult] | None
    """None where the reference is defective."""
    defects: list[Defect]
    """Of the reference."""
    unusable: list[Defect]
    """Of the prediction, which then counts as missing."""


def score_folders(
    reference: Path,
    prediction: Path,
    scoring: Scoring,
    *,
    missing_as_zero: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FolderScores:
    """Score all cases of a reference folder.

    Args:
        reference: folder of true label files.
        prediction: folder of predicted label files; a case that it lacks gets the score of a
            missing case.
        scoring: the task, the metrics and their rules.
        missing_as_zero: also give that score to a case whose prediction cannot be used.
        workers: cases scored at once; None means one per usable core.
        progress: called after each case with the number of cases done and of all cases.

    Raises:
        ConfigError: when a folder does not exist.
        DataError: with every defect of every case: unreadable files, labels that the task does
            not know, grids that differ, predictions without a reference, ambiguous names; then
            also with the missing predictions.
    """
    pairing = find_pairs(reference, prediction, scoring.task)
    results: dict[str, dict[str, RegionResult]] = {}
    defects, unusable = [*pairing.defects], [*pairing.ambiguous]
    outcomes = in_order(partial(score_pair_of_files, scoring=scoring), pairing.pairs, workers)
    for done, outcome in enumerate(outcomes, start=1):
        defects += outcome.defects
        unusable += outcome.unusable
        if outcome.regions is not None:
            results[outcome.case] = outcome.regions
        if progress is not None:
            progress(done, len(pairing.pairs))
    if defects or (unusable and not missing_as_zero):
        none = [Defect(case, str(prediction), "a prediction", "none") for case in pairing.missing]
        every = sorted(
            [*defects, *unusable, *none], key=lambda one: (one.case != DATA_SET, one.case)
        )
        hint = "" if defects else " (with --missing-as-zero, these predictions count as missing)"
        raise DataError(f"{prediction}: cannot be scored against {reference}{hint}:", every)
    return FolderScores(results, pairing.missing, tuple(unusable))


def score_pair_of_files(pair: Pair, scoring: Scoring) -> Outcome:
    """Read and score one case; what is wrong with it is returned, not raised."""
    task = scoring.task
    defects: list[Defect] = []
    unusable: list[Defect] = []
    true = _read(pair.case, pair.reference, task, defects)
    found = _read(pair.case, pair.prediction, task, unusable) if pair.prediction else None
    if true and found and (difference := same_grid(true[1], found[1])):
        expected = f"the grid of {pair.reference}"
        unusable.append(Defect(pair.case, str(pair.prediction), expected, difference))
    if true is None or defects:
        return Outcome(pair.case, None, defects, unusable)
    labels, grid = true
    usable = found is not None and not unusable
    predicted = found[0] if found and usable else np.zeros_like(labels)
    pairs = region_pairs(labels, predicted, grid.spacing_mm, task)
    result = _result if usable else _missing
    regions = {region: result(one, scoring) for region, one in pairs.items()}
    return Outcome(pair.case, regions, defects, unusable)


def _result(pair: RegionPair, scoring: Scoring) -> RegionResult:
    return RegionResult(
        score=score_pair(pair, hd95=scoring.hd95, rules=scoring.rules),
        further=further_scores(pair, scoring.further, scoring.rules),
        reference_ml=pair.n_reference * pair.voxel_mm3 / MM3_PER_ML,
        prediction_ml=pair.n_prediction * pair.voxel_mm3 / MM3_PER_ML,
    )


def _missing(pair: RegionPair, scoring: Scoring) -> RegionResult:
    return RegionResult(
        score=scoring.rules.missing_case,
        further=further_scores_of_missing(scoring.further, scoring.rules),
        reference_ml=pair.n_reference * pair.voxel_mm3 / MM3_PER_ML,
        prediction_ml=None,
    )


def _read(case: str, path: Path, task: Task, defects: list[Defect]) -> tuple[LabelMap, Grid] | None:
    """Read a label file; what is wrong with it is added to `defects`."""
    try:
        labels, grid = read_labels(path, task.label_mapping)
    except DataError as error:
        defects.extend(replace(defect, case=case) for defect in error.defects)
        return None
    known = np.zeros(256, np.bool_)
    known[list(task.labels.values())] = True
    if not known[labels].all():
        unknown = ", ".join(map(str, np.unique(labels[~known[labels]])))
        expected = f"labels {', '.join(map(str, sorted(task.accepted_values)))} of {task.name}"
        defects.append(Defect(case, str(path), expected, unknown))
    return labels, grid
