"""Which files of two folders belong together: references and predictions, paired by case name.

Two arrangements of files are read, also mixed: flat (``<case>.nii.gz``, as nnU-Net's labelsTr)
and BraTS folders (``<case>/<case>_seg.nii.gz``).
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from client.dataset.layouts import DATA_SET, ENDINGS
from common.errors import ConfigError, Defect
from common.task import Task

BRATS_LABEL_SUFFIXES = ("_seg", "-seg")  # BraTS 2012-2021 and 2023 names, for tasks without files


@dataclass(frozen=True)
class Pair:
    """The two label files of one case. Never leaves the site."""

    case: str
    reference: Path
    prediction: Path | None
    """None where nothing was predicted for the case."""


@dataclass(frozen=True)
class Pairing:
    """The cases of two folders, and what is wrong with their names."""

    pairs: tuple[Pair, ...]
    """One per reference, sorted by case."""
    defects: tuple[Defect, ...]
    """References that are not just one file, predictions of no case, folders without any file."""
    ambiguous: tuple[Defect, ...]
    """Cases with several predictions, or with a folder that holds none."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Cases without any prediction; none in a folder without any, which is a defect itself."""
        known = {defect.case for defect in self.ambiguous}
        lacking = [pair.case for pair in self.pairs if pair.prediction is None]
        if len(lacking) == len(self.pairs) and not known:
            return ()
        return tuple(case for case in lacking if case not in known)


def find_pairs(reference: Path, prediction: Path, task: Task) -> Pairing:
    """Pair the label files of two folders by case name.

    Raises:
        ConfigError: when a folder does not exist.
    """
    true, defects = label_files(reference, task)
    predicted, ambiguous = label_files(prediction, task)
    named = true.keys() | {defect.case for defect in defects}
    unmatched = [
        Defect(case, str(path), f"a reference of that case in {reference}", "none")
        for case, path in sorted(predicted.items())
        if case not in named
    ]
    unmatched += [defect for defect in ambiguous if defect.case not in named]
    if not named:
        fault = ("at least one label file (.nii.gz)", "none")
        defects = [Defect(DATA_SET, str(reference), *fault)]
    if not predicted and not ambiguous:
        fault = ("at least one label file (.nii.gz); a folder of none is no submission", "none")
        unmatched = [Defect(DATA_SET, str(prediction), *fault)]
    return Pairing(
        pairs=tuple(Pair(case, true[case], predicted.get(case)) for case in sorted(true)),
        defects=(*defects, *unmatched),
        ambiguous=tuple(defect for defect in ambiguous if defect.case in named),
    )


def label_files(folder: Path, task: Task) -> tuple[dict[str, Path], list[Defect]]:
    """Return the label file of every case in a folder, and the cases that have not just one.

    Raises:
        ConfigError: when the folder does not exist.
    """
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
