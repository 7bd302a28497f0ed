"""Telling a hospital everything that is wrong with its folder, in one run.

Nothing here leaves the site: facts, defects and suspicions name cases and files. `checks.py`
looks at one case, this module at the folder and at what only shows between cases.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from client.dataset.checks import CaseFacts, Examined, Suspicion, examine
from client.dataset.layouts import find_cases
from client.dataset.names import date_in, person_in
from client.dataset.orientation import rare_orders, turned
from client.dataset.patients import equal_checksums, repeated_patients
from client.parallel import in_order
from common.case import Case, DatasetDescription
from common.errors import DataError, Defect
from common.task import Task

__all__ = ["CaseFacts", "Inspection", "Suspicion", "check", "inspect", "inspect_folder"]

RENAME = "give its folder and files a pseudonym if it tells a name, a birth or an examination"
CLEAR_HEADER = "clear that field of the header if it names the patient"
COMPARE = "compare it with the scanner's images"

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (cases done, cases in all)."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a data set."""

    n_cases: int
    """Cases that have all their files, sound or not."""
    defects: tuple[Defect, ...]
    """First what is missing, then what the files of each case hold; empty for a sound data set."""
    cases: tuple[CaseFacts, ...]
    """One entry per case with a readable image, sorted by name."""
    warnings: tuple[Suspicion, ...] = ()
    """What somebody should look at, though the data can be used; cases first, then between them."""


def inspect_folder(
    folder: Path,
    task: Task,
    only: Collection[str] | None = None,
    *,
    labels_required: bool = True,
    progress: Progress | None = None,
    workers: int | None = None,
    patients: Mapping[str, str] | None = None,
    pictures: dict[str, dict[str, bytes]] | None = None,
) -> Inspection:
    """Find the cases of a folder and open every file of those that are complete.

    Args:
        folder: a data set in any layout of `client.dataset.layouts`.
        task: its channels and labels are what is expected.
        only: names of the cases that are wanted; None means all.
        labels_required: whether a case without a reference segmentation is a defect.
        progress: called after each case.
        workers: how many cases are read at once; None means one per usable core.
        patients: patient by case; None means that the names of the cases tell.
        pictures: gets the pictures of each case by channel; None means that none is drawn.

    Returns:
        The defects of the layout and of the voxels together; nothing is raised for bad data.
    """
    findings = find_cases(folder, task, only, labels_required=labels_required)
    look = partial(examine, task=task, pictures=pictures is not None)
    examined = _examine_all(findings.cases, look, progress, workers)
    if pictures is not None:
        pictures.update({one.case.name: one.pictures for one in examined})
    opened = _between_cases(folder, examined, patients)
    return replace(opened, defects=findings.defects + opened.defects)


def inspect(
    description: DatasetDescription,
    task: Task,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
) -> Inspection:
    """Open every file of every case and list all defects and suspicions."""
    look = partial(examine, task=task)
    examined = _examine_all(description.cases, look, progress, workers)
    return _between_cases(description.folder, examined, None)


def check(
    description: DatasetDescription,
    task: Task,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
) -> None:
    """Demand data without defects; suspicions are no reason to stop.

    Raises:
        DataError: with every defect of every case.
    """
    if defects := inspect(description, task, progress, workers=workers).defects:
        raise DataError(f"{description.folder}: the data set has defects", defects)


def _examine_all(
    cases: Sequence[Case],
    look: Callable[[Case], Examined],
    progress: Progress | None,
    workers: int | None,
) -> list[Examined]:
    examined: list[Examined] = []
    for one in in_order(look, cases, workers):
        examined.append(one)
        if progress:
            progress(len(examined), len(cases))
    return examined


def _between_cases(
    folder: Path, examined: Sequence[Examined], patients: Mapping[str, str] | None
) -> Inspection:
    """Put the cases together and add what only their comparison shows."""
    suspicions = [suspicion for one in examined for suspicion in one.suspicions]
    suspicions += _named_files(folder, examined)
    suspicions += _named_headers(examined)
    suspicions += _same_patients(folder, examined, patients)
    suspicions += _same_images(examined)
    suspicions += _odd_orientations(examined)
    return Inspection(
        len(examined),
        tuple(defect for one in examined for defect in one.defects),
        tuple(one.facts for one in examined if one.facts),
        tuple(suspicions),
    )


def _named_files(folder: Path, examined: Sequence[Examined]) -> Iterator[Suspicion]:
    """Yield names of files and folders that look like a person's name or a day, each once."""
    seen: set[tuple[str, str]] = set()
    for one in examined:
        for path in (*one.case.images, *([one.case.label] if one.case.label else [])):
            inner = path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
            for part in inner.parts:
                for text, kind in ((person_in(part), "a person"), (date_in(part), "a day")):
                    # Once for a folder of several cases; once per case for what names the case.
                    owner = one.case.name if text and text in one.case.name else ""
                    if text and (owner, text) not in seen:
                        seen.add((owner, text))
                        found = f"'{text}' in its name looks like {kind}"
                        yield Suspicion(one.case.name, str(path), found, RENAME)


def _named_headers(examined: Sequence[Examined]) -> Iterator[Suspicion]:
    """Yield header texts that look like a name; one text in many files is one suspicion."""
    places: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for one in examined:
        for file, field, text in one.evidence.texts:
            places[field, text].append((one.case.name, file))
    for (field, text), files in places.items():
        more = f" and of {len(files) - 1} more files" if len(files) > 1 else ""
        found = f"'{text}' in the field {field} of its header{more} looks like a person"
        advice = CLEAR_HEADER
        if field == "extension":
            found = f"its header{more} carries {text}, where name and birth date may stand"
            advice = "convert it again without extensions"
        yield Suspicion(*files[0], found, advice)


def _same_patients(
    folder: Path, examined: Sequence[Examined], patients: Mapping[str, str] | None
) -> Iterator[Suspicion]:
    names = [one.case.name for one in examined]
    for patient, cases in repeated_patients(names, patients).items():
        found = f"{len(cases)} scans of one patient, {patient}: {', '.join(cases)}"
        advice = (
            "keep them at one site and on one side of every split, or the score will be too good"
        )
        yield Suspicion(cases[0], str(folder), found, advice)


def _same_images(examined: Sequence[Examined]) -> Iterator[Suspicion]:
    """Yield images that exist under several names, within a case or between cases."""
    owners = {file: one.case.name for one in examined for file, _ in one.evidence.checksums}
    checksums = [entry for one in examined for entry in one.evidence.checksums]
    for first, *others in equal_checksums(checksums):
        found = f"the same voxels as {', '.join(others)}"
        yield Suspicion(owners[first], first, found, "keep one of them, and find the one missing")


def _odd_orientations(examined: Sequence[Examined]) -> Iterator[Suspicion]:
    """Yield cases that are stored or lie unlike the others."""
    readable = [one for one in examined if one.facts and one.evidence.signature is not None]
    orders = rare_orders([one.facts.axis_codes for one in readable if one.facts])
    for place, usual in orders.items():
        one = readable[place]
        codes = one.facts.axis_codes if one.facts else ""
        found = f"axes that point to {codes} where nearly all other cases have {usual}"
        yield Suspicion(one.case.name, str(one.case.images[0]), found, COMPARE)
    signatures = [one.evidence.signature for one in readable if one.evidence.signature is not None]
    for place, words in turned(signatures).items():
        one = readable[place]
        found = f"an image that fits the other cases better when it is turned {words}"
        yield Suspicion(one.case.name, str(one.case.images[0]), found, COMPARE)
