"""Which files make up which case: BraTS / FeTS folders, Medical Segmentation Decathlon, nnU-Net.

Nothing is opened here but ``dataset.json``; what the images hold is `inspection.py`'s matter.
Every layout is first listed as candidates (which files could be which channel of which case),
then one rule for all layouts says what is missing and what is there twice.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.case import Case, DatasetDescription, Layout
from common.errors import DataError, Defect
from common.task import Files, Task

ENDINGS = (".nii.gz", ".nii")
CHANNEL_NUMBER = re.compile(r"_\d{4}$")  # nnU-Net v2, documentation/dataset_format.md
FAULTS = (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)  # of JSON
MAX_LISTED = 6  # files of a folder in which none fits
DATA_SET = "data set"
"""Stands for the case in a defect that belongs to no single case."""


@dataclass(frozen=True)
class Findings:
    """What lies in a folder: the complete cases, and a defect for everything else."""

    layout: Layout | None
    cases: tuple[Case, ...]
    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class _Candidate:
    """The files that could belong to one case; complete when each list of images has one."""

    name: str
    image_folder: Path
    images: dict[str, list[Path]]
    """Files by what is wanted, in words and in the order of the channels."""
    label_folder: Path
    labels: list[Path]
    surplus: tuple[Path, ...] = ()
    """Images of channels that the task does not have."""


def describe(
    folder: Path,
    task: Task,
    only: Collection[str] | None = None,
    *,
    labels_required: bool = True,
) -> DatasetDescription:
    """Find the cases of a folder.

    Args:
        folder: a data set in one of the layouts, or a plain folder of NIfTI images.
        task: its channels and file endings say what a case must have.
        only: names of the cases that are wanted; None means all.
        labels_required: whether a case without a reference segmentation is a defect.

    Returns:
        The cases, sorted by name; at least one.

    Raises:
        DataError: with every missing, doubled and surplus file of every wanted case.
        ConfigError: when the task does not say how the files of all its channels are called.
    """
    findings = find_cases(folder, task, only, labels_required=labels_required)
    if findings.defects or findings.layout is None:
        raise DataError(f"{folder}: the data set is not complete", findings.defects)
    return DatasetDescription(folder, findings.layout, findings.cases)


def find_cases(
    folder: Path,
    task: Task,
    only: Collection[str] | None = None,
    *,
    labels_required: bool = True,
) -> Findings:
    """Find the complete cases and all defects; arguments as for `describe`."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        return Findings(None, (), (Defect(DATA_SET, str(folder), "a folder of cases", found),))
    try:
        layout, candidates, defects = _list(folder, task)
    except OSError as error:
        unreadable = Defect(DATA_SET, str(folder), "readable folders", str(error.strerror))
        return Findings(None, (), (unreadable,))
    wanted = {candidate.name for candidate in candidates} if only is None else set(only)
    cases: list[Case] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.name):
        if candidate.name in wanted:
            faults = _faults(candidate, labels_required=labels_required)
            defects += faults
            cases += [] if faults else [_case(candidate)]
    for name in sorted(wanted - {candidate.name for candidate in candidates}):
        defects.append(Defect(name, str(folder), "a case of this name", "none"))
    if not cases and not defects:
        defects.append(_no_case(folder, task, layout))
    return Findings(layout, tuple(cases), tuple(defects))


def _list(folder: Path, task: Task) -> tuple[Layout, list[_Candidate], list[Defect]]:
    """Recognise the layout and list what could be a case in it."""
    metadata = folder / "dataset.json"
    if metadata.is_file() or (folder / "imagesTr").is_dir():
        image_folder = folder / "imagesTr"
    elif _by_stem(folder) and not (task.files and any(map(_by_stem, _subfolders(folder)))):
        image_folder = folder
    else:
        return "brats", _brats(folder, task), []
    images, labels = _by_stem(image_folder), _by_stem(folder / "labelsTr")
    defects = _metadata_defects(metadata, task) if metadata.is_file() else []
    numbered = [stem for stem in images if _is_numbered(stem, labels, len(task.channels))]
    if 2 * len(numbered) > len(images):
        candidates = _nnunet(image_folder, images, folder / "labelsTr", labels, task)
        return "nnunet", candidates, defects
    return "decathlon", _decathlon(image_folder, images, folder / "labelsTr", labels), defects


def _is_numbered(stem: str, labels: Collection[str], n_channels: int) -> bool:
    """Return whether four digits at the end are a channel's number, not a case's (phantom_0001)."""
    if not CHANNEL_NUMBER.search(stem) or stem in labels:
        return False
    return int(stem[-4:]) < n_channels or CHANNEL_NUMBER.sub("", stem) in labels


def _no_case(folder: Path, task: Task, layout: Layout) -> Defect:
    """Say what was looked for, and why folders with images are no cases of this task."""
    n_folders = sum(bool(_by_stem(path)) for path in _subfolders(folder))
    if layout == "brats" and task.files is None and n_folders:
        expected = (
            f"dataset.json and imagesTr, because task {task.name} has no table 'files' that says "
            "which file of a case's folder is which channel (name another task with --task, or "
            "write that table into a task of your own)"
        )
        return Defect(DATA_SET, str(folder), expected, f"{n_folders} folders with images")
    expected = "at least one case (imagesTr, NIfTI images, or a folder per case)"
    return Defect(DATA_SET, str(folder), expected, "none")


def _brats(folder: Path, task: Task) -> list[_Candidate]:
    """List one candidate per subfolder; a task that names no files has none."""
    if task.files is None:
        return []
    return [_brats_case(path, task.channels, task.files) for path in _subfolders(folder)]


def _brats_case(folder: Path, channels: Sequence[str], files: Files) -> _Candidate:
    """Give every file to the channel that its stem ends with."""
    present = _by_stem(folder)
    images = {}
    for channel in channels:
        suffixes = files.channel_suffixes[channel]
        names = " or ".join(f"*{suffix}.nii.gz" for suffix in suffixes)
        images[f"one image for channel {channel} ({names})"] = _ending_in(suffixes, present)
    labels = _ending_in(files.label_suffixes, present)
    return _Candidate(folder.name, folder, images, folder, labels)


def _decathlon(
    image_folder: Path,
    images: dict[str, list[Path]],
    label_folder: Path,
    labels: dict[str, list[Path]],
) -> list[_Candidate]:
    """List one candidate per name of an image or a label."""
    return [
        _Candidate(
            name,
            image_folder,
            {f"one image {name}.nii.gz": images.get(name, [])},
            label_folder,
            labels.get(name, []),
        )
        for name in {*images, *labels}
    ]


def _nnunet(
    image_folder: Path,
    images: dict[str, list[Path]],
    label_folder: Path,
    labels: dict[str, list[Path]],
    task: Task,
) -> list[_Candidate]:
    """List one candidate per name before the channel number, or of a label."""
    stems: dict[str, list[str]] = {name: [] for name in labels}
    for stem in images:
        stems.setdefault(CHANNEL_NUMBER.sub("", stem), []).append(stem)
    candidates = []
    for name, own in stems.items():
        known = [f"{name}_{number:04d}" for number in range(len(task.channels))]
        wanted = {
            f"one image {stem}.nii.gz (channel {channel})": images.get(stem, [])
            for stem, channel in zip(known, task.channels, strict=True)
        }
        surplus = tuple(path for stem in own if stem not in known for path in images[stem])
        found = labels.get(name, [])
        candidates.append(_Candidate(name, image_folder, wanted, label_folder, found, surplus))
    return candidates


def _metadata_defects(path: Path, task: Task) -> list[Defect]:
    """Compare the channels and labels that ``dataset.json`` names with the task's.

    Names differ between data sets ("MRI", "T1w"), so that only the number of channels and a name
    that stands at another place are defects: the order decides which image is which channel. Of
    labels the values count; a data set may lack some.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8-sig"))
        names, labels = _channel_names(plain), _label_values(plain)
    except FAULTS as error:
        return [Defect(DATA_SET, str(path), "readable JSON with named channels", str(error))]
    faults = [*_channel_faults(names, task), *_label_faults(labels, task)]
    return [Defect(DATA_SET, str(path), *fault) for fault in faults]


def _channel_faults(names: Sequence[str], task: Task) -> Iterator[tuple[str, str]]:
    own = [channel.lower() for channel in task.channels]
    moved = any(name in own and own.index(name) != place for place, name in enumerate(names))
    if names and (len(names) != len(own) or moved):
        yield f"the channels {', '.join(own)} of task {task.name}", ", ".join(names)


def _label_faults(labels: Mapping[str, set[int]], task: Task) -> Iterator[tuple[str, str]]:
    if values := labels.get("ignore"):
        found = f"'ignore' = {', '.join(map(str, sorted(values)))}"
        yield "cases that are labelled everywhere; a label 'ignore' is not supported", found
    declared = set().union(*(values for name, values in labels.items() if name != "ignore"))
    if unknown := sorted(declared - task.accepted_values):
        known = ", ".join(map(str, sorted(task.accepted_values)))
        yield f"the labels {known} of task {task.name}", f"{', '.join(map(str, unknown))} as well"


def _channel_names(plain: Any) -> list[str]:
    """Return the names in order; both tables are keyed by the number of the channel."""
    table = plain.get("channel_names", plain.get("modality", {}))
    return [str(table[key]).lower() for key in sorted(table, key=int)]


def _label_values(plain: Any) -> dict[str, set[int]]:
    """Return the values by name; Decathlon names values, nnU-Net also lists them per region."""
    table = plain.get("labels", {})
    if all(str(key).isdigit() for key in table):
        return {str(name): {int(value)} for value, name in table.items()}
    return {
        str(name): {int(value) for value in (values if isinstance(values, list) else [values])}
        for name, values in table.items()
    }


def _faults(candidate: _Candidate, *, labels_required: bool) -> list[Defect]:
    """Return what is missing, doubled or surplus."""
    name, folder = candidate.name, str(candidate.image_folder)
    if not candidate.labels and not any(candidate.images.values()):
        wanted = "; ".join(candidate.images)
        present = [path for paths in _by_stem(candidate.image_folder).values() for path in paths]
        return [Defect(name, folder, wanted, _listed(present[:MAX_LISTED]) if present else "none")]
    faults = [
        Defect(name, folder, wanted, _listed(paths))
        for wanted, paths in candidate.images.items()
        if len(paths) != 1
    ]
    faults += [
        Defect(name, str(path), "only channels of the task", path.name)
        for path in candidate.surplus
    ]
    if len(candidate.labels) > 1 or (labels_required and not candidate.labels):
        found = _listed(candidate.labels)
        faults.append(Defect(name, str(candidate.label_folder), "one label file", found))
    return faults


def _case(candidate: _Candidate) -> Case:
    """Turn a candidate without faults into a case."""
    images = tuple(path for (path,) in candidate.images.values())
    return Case(candidate.name, images, candidate.labels[0] if candidate.labels else None)


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Return the NIfTI files by name without ending; two entries are one name with two endings."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending and _visible(path):
            files.setdefault(path.name.removesuffix(ending), []).append(path)
    return files


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and _visible(path)]


def _ending_in(suffixes: tuple[str, ...], files: dict[str, list[Path]]) -> list[Path]:
    return [path for stem, paths in files.items() if stem.endswith(suffixes) for path in paths]


def _visible(path: Path) -> bool:
    """Return False for what macOS adds to an archive and for other hidden files."""
    return not path.name.startswith(".") and path.name != "__MACOSX"


def _listed(paths: Iterable[Path]) -> str:
    return " and ".join(path.name for path in paths) or "no such file"
