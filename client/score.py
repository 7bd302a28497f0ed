"""Score a folder of predictions against a folder of references, case by case.

Two arrangements of files are read, also mixed: flat (``<case>.nii.gz``, as nnU-Net's labelsTr)
and BraTS folders (``<case>/<case>_seg.nii.gz``). Cases are paired by name.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from client.layouts import DATA_SET, ENDINGS
from client.nifti import Grid, read_labels, same_grid
from common.axes import LabelMap
from common.errors import ConfigError, DataError, Defect
from common.metrics import BRATS_RULES, EmptyRules, RegionScore, score_case
from common.scores import ScoreTable
from common.surface import Hd95
from common.task import Task

BRATS_LABEL_SUFFIXES = ("_seg", "-seg")  # BraTS 2012-2021 and 2023 names, for tasks without files


@dataclass(frozen=True)
class Pair:
    """The two label files of one case. Never leaves the site."""

    case: str
    reference: Path
    prediction: Path | None
    """None where nothing was predicted for the case."""


def score_folders(
    reference: Path,
    prediction: Path,
    task: Task,
    *,
    hd95: Hd95,
    rules: EmptyRules = BRATS_RULES,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreTable:
    """Score all cases of a reference folder.

    Args:
        reference: folder of true label files.
        prediction: folder of predicted label files; a case that it lacks gets the score of a
            missing case.
        task: names regions and labels; its label mapping applies to both folders.
        hd95: which definition of HD95.
        rules: what empty regions and missing cases score.
        progress: called after each case with the number of cases done and of all cases.

    Returns:
        Scores by case and region, sorted by case.

    Raises:
        ConfigError: when a folder does not exist.
        DataError: with every defect of every case: unreadable files, labels that the task does
            not know, grids that differ, predictions without a reference, ambiguous names.
    """
    pairs, defects = find_pairs(reference, prediction, task)
    scores: dict[str, dict[str, RegionScore]] = {}
    for done, pair in enumerate(pairs, start=1):
        try:
            scores[pair.case] = _score_pair(pair, task, hd95, rules)
        except DataError as error:
            defects.extend(error.defects)
        if progress is not None:
            progress(done, len(pairs))
    if defects:
        raise DataError(f"{prediction}: cannot be scored against {reference}:", defects)
    return scores


def find_pairs(reference: Path, prediction: Path, task: Task) -> tuple[list[Pair], list[Defect]]:
    """Pair the label files of two folders by case name.

    Returns:
        One pair per reference, sorted by case, and what is wrong with names and folders.

    Raises:
        ConfigError: when a folder does not exist.
    """
    true, defects = _label_files(reference, task)
    predicted, more_defects = _label_files(prediction, task)
    if not true and not defects:
        defects = [Defect(DATA_SET, str(reference), "at least one label file (.nii.gz)", "none")]
    if not predicted and not more_defects:
        fault = ("at least one label file (.nii.gz); a folder of none is no submission", "none")
        more_defects = [Defect(DATA_SET, str(prediction), *fault)]
    unmatched = [
        Defect(case, str(predicted[case]), f"a reference of that case in {reference}", "none")
        for case in sorted(predicted.keys() - true.keys() - {defect.case for defect in defects})
    ]
    pairs = [Pair(case, true[case], predicted.get(case)) for case in sorted(true)]
    return pairs, [*defects, *more_defects, *unmatched]


def _score_pair(pair: Pair, task: Task, hd95: Hd95, rules: EmptyRules) -> dict[str, RegionScore]:
    defects: list[Defect] = []
    true = _read(pair.case, pair.reference, task, defects)
    predicted = _read(pair.case, pair.prediction, task, defects) if pair.prediction else None
    if true and predicted and (difference := same_grid(true[1], predicted[1])):
        expected = f"the grid of {pair.reference}"
        defects.append(Defect(pair.case, str(pair.prediction), expected, difference))
    if defects or true is None:
        raise DataError("The case cannot be scored:", defects)
    if predicted is None:
        return dict.fromkeys(task.regions, rules.missing_case)
    labels, grid = true
    return score_case(labels, predicted[0], grid.spacing_mm, task, hd95=hd95, rules=rules)


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


def _label_files(folder: Path, task: Task) -> tuple[dict[str, Path], list[Defect]]:
    """Return the label file of every case in a folder, and the cases that have not just one."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder of label files, found no such folder")
    suffixes = task.files.label_suffixes if task.files else BRATS_LABEL_SUFFIXES
    labels = folder / "labelsTr"  # Decathlon and nnU-Net data sets keep their labels there
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((labels if labels.is_dir() else folder).iterdir()):
        if path.is_dir():
            if images := [image for image in sorted(path.iterdir()) if _is_nifti(image)]:
                files[path.name] += _labels_among(images, suffixes)
        elif _is_nifti(path):
            files[_case_name(path, suffixes)].append(path)
    defects = [
        Defect(case, str(folder), "one label file", ", ".join(map(str, paths)) or "none")
        for case, paths in files.items()
        if len(paths) != 1
    ]
    return {case: paths[0] for case, paths in files.items() if len(paths) == 1}, defects


def _labels_among(images: list[Path], suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files whose name says label, or else the only file there is."""
    labels = [path for path in images if _stem(path).endswith(suffixes)]
    return labels or (images if len(images) == 1 else [])


def _case_name(path: Path, suffixes: tuple[str, ...]) -> str:
    stem = _stem(path)
    return next((stem.removesuffix(end) for end in suffixes if stem.endswith(end)), stem)


def _stem(path: Path) -> str:
    return next(path.name.removesuffix(end) for end in ENDINGS if path.name.endswith(end))


def _is_nifti(path: Path) -> bool:
    """Tell NIfTI files from others, also from the hidden ``._`` files that some systems leave."""
    return path.is_file() and path.name.endswith(ENDINGS) and not path.name.startswith(".")
