"""Which cases can be looked at, and what is known of each before it is opened.

Cases come from the folder, as every other command reads it; one that is not complete is left out
with a warning. Scores come from a file, or are computed where reference and prediction are there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from client.dataset.layouts import describe, find_cases
from client.dataset.nifti import read_labels
from client.parallel import in_order
from client.scoring.pairs import Pair, label_files
from client.scoring.score import Scoring, score_pair_of_files
from common.case import Case
from common.errors import ConfigError, DataError
from common.evaluation.scores import METRICS, read_all_scores
from common.task import Task, regions_of

Progress: TypeAlias = Callable[[float, int], None]

Values: TypeAlias = Mapping[str, Mapping[str, float]]
"""Metrics of one case by region and name; NaN where a value is missing."""

RUN_FILES = ("events.jsonl", "coordinator.toml")  # what a coordinator keeps; images it has none


@dataclass(frozen=True)
class ListedCase:
    """One case that can be looked at. Never leaves the site."""

    case: Case
    prediction: Path | None = None
    values: Values = field(default_factory=dict)
    """Empty for a case that was not scored."""
    empty: tuple[str, ...] = ()
    """Regions that the reference does not hold, of a scored case."""
    faults: tuple[str, ...] = ()
    """What is wrong with reference or prediction, in words."""


@dataclass(frozen=True)
class Listing:
    """Everything that one viewer shows. Never leaves the site."""

    folder: Path
    task: Task
    cases: tuple[ListedCase, ...]
    """Sorted by name; a case's number is its place here."""
    with_predictions: bool
    """Whether a folder of predictions was named; only then can one be missing."""
    warnings: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that any case has, in the order of the file."""
        names = (name for one in self.cases for row in one.values.values() for name in row)
        return tuple(dict.fromkeys(names))


def list_cases(
    folder: Path, task: Task, prediction: Path | None, scores: Path | None, progress: Progress
) -> Listing:
    """Find the cases of a folder with their predictions and scores.

    Args:
        folder: a data set in any layout; references may be absent.
        task: names channels, labels and regions.
        prediction: folder of label files, as `consilium predict` writes them.
        scores: file of `consilium score`; without it, cases that have both are scored now.
        progress: told the number of cases done and of all cases.

    Raises:
        ConfigError: for a coordinator's folder, a folder that does not exist, and scores of
            other cases or regions.
        DataError: when there is not a single complete case.
    """
    refuse_coordinator(folder)
    found = find_cases(folder, task, labels_required=False)
    if not found.cases:
        describe(folder, task, labels_required=False)  # says what is wrong, as other commands do
    cases = _with_predictions(found.cases, prediction, task)
    warnings = [str(defect) for defect in found.defects]
    if prediction and not any(one.prediction or one.faults for one in cases):
        warnings.append(f"{prediction}: holds no prediction of any of these cases")
    if scores:
        cases = _with_scores_of_file(cases, scores, task, progress)
    elif prediction:
        scoring = Scoring(task, "pooled")
        cases = _each(partial(_with_own_scores, scoring=scoring), cases, progress)
    return Listing(folder, task, tuple(cases), prediction is not None, tuple(warnings))


def refuse_coordinator(folder: Path) -> None:
    """Refuse a coordinator's folders, which hold no image.

    Raises:
        ConfigError: when the folder is a run directory or a coordinator's kit.
    """
    if found := [name for name in RUN_FILES if (folder / name).exists()]:
        raise ConfigError(
            f"{folder}: expected a folder of cases, found a coordinator's folder ({found[0]}); "
            "images never leave their site: look at them there, or at the data of a simulation"
        )


def _with_predictions(cases: Sequence[Case], folder: Path | None, task: Task) -> list[ListedCase]:
    """Find each case's prediction; several of one case are a fault."""
    files, ambiguous = label_files(folder, task) if folder else ({}, [])
    faults = {defect.case: (str(defect),) for defect in ambiguous}
    return [
        ListedCase(case, files.get(case.name), faults=faults.get(case.name, ())) for case in cases
    ]


def _with_scores_of_file(
    cases: list[ListedCase], path: Path, task: Task, progress: Progress
) -> list[ListedCase]:
    """Return the cases with what the file says about them."""
    table, further = read_all_scores(path)
    regions = {region for rows in table.values() for region in rows}
    if foreign := sorted(regions - set(task.regions)):
        known = ", ".join(task.regions)
        raise ConfigError(
            f"{path}: expected the regions {known} of task {task.name}, found "
            f"{', '.join(foreign)}; name another task with --task"
        )
    if not table.keys() & {one.case.name for one in cases}:
        raise ConfigError(f"{path}: expected scores of the cases in the folder, found none of them")
    values = {
        case: {
            region: {name: getattr(score, name) for name in METRICS} | {**further[case][region]}
            for region, score in rows.items()
        }
        for case, rows in table.items()
    }
    scored = [replace(one, values=values.get(one.case.name, {})) for one in cases]
    return _each(partial(_with_empty_regions, task=task), scored, progress)


def _with_empty_regions(one: ListedCase, task: Task) -> ListedCase:
    """Find what the reference lacks; only where a Dice of 0, 1 or none says that it may."""
    extreme = [region for region, row in one.values.items() if not 0 < row["dice"] < 1]
    if not extreme or one.case.label is None:
        return one
    try:
        labels, _ = read_labels(one.case.label, task.label_mapping)
    except DataError:
        return one  # opening the case says what is wrong
    masks = dict(zip(task.regions, regions_of(labels, task), strict=True))
    return replace(one, empty=tuple(region for region in extreme if not masks[region].any()))


def _with_own_scores(one: ListedCase, scoring: Scoring) -> ListedCase:
    """Score a case that has a reference; without a prediction it has the score of a missing one."""
    if one.case.label is None:
        return one
    pair = Pair(one.case.name, one.case.label, one.prediction)
    outcome = score_pair_of_files(pair, scoring)
    regions = outcome.regions or {}
    return replace(
        one,
        values={
            region: {name: getattr(result.score, name) for name in METRICS}
            for region, result in regions.items()
        },
        empty=tuple(region for region, result in regions.items() if result.reference_ml == 0),
        faults=(*one.faults, *map(str, (*outcome.defects, *outcome.unusable))),
    )


def _each(
    work: Callable[[ListedCase], ListedCase], cases: list[ListedCase], progress: Progress
) -> list[ListedCase]:
    done = []
    for one in in_order(work, cases):
        done.append(one)
        progress(len(done), len(cases))
    return done
