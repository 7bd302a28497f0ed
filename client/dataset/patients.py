"""Which cases are scans of the same patient, and which images are the same image.

Two scans of one patient on both sides of a split make a score too good. The patient is read from
the case's name, or from a table that the hospital has.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.errors import ConfigError

COLUMNS = ("Subject_ID", "Patient_ID")

# The patient's number, then a short number for the scan: BraTS-GLI-00012-001,
# BraTS2021_00012_000, UPENN-GBM-00001_11, brats_2013_pat0003_1. A year or a day is no patient.
NUMBERED_SCAN = re.compile(
    r"(?P<patient>.*?(?<!\d)(?!(?:19|20)\d\d(?:\d{4})?(?!\d))\d{3,})[-_](?:scan|visit|tp|t)?\d{1,3}",
    re.IGNORECASE,
)
BIDS_SESSION = re.compile(r"(?P<patient>sub-[A-Za-z0-9]+)_ses-[A-Za-z0-9]+.*")  # bids-standard


def patient_of(name: str) -> str:
    """Return the patient that a case's name tells, or the name itself."""
    for rule in (BIDS_SESSION, NUMBERED_SCAN):
        if found := rule.fullmatch(name):
            return found.group("patient")
    return name


def read_patients(path: Path) -> dict[str, str]:
    """Read the patient of every case from a CSV with the columns Subject_ID and Patient_ID.

    Raises:
        ConfigError: when the file cannot be read, lacks a column, or names two patients of a case.
    """
    patients: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
                found = ", ".join(table.fieldnames or ()) or "none"
                raise ConfigError(f"{path}: expected a column {missing[0]}, found {found}")
            for row in table:
                case, patient = ((row[name] or "").strip() for name in COLUMNS)
                if not case or not patient or patients.setdefault(case, patient) != patient:
                    raise ConfigError(
                        f"{path}: line {table.line_num}: expected one case and its one patient"
                    )
    except OSError as error:
        raise ConfigError(f"{path}: expected a readable CSV, found {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: expected a CSV in UTF-8, found {error}") from None
    return patients


def repeated_patients(
    names: Iterable[str], patients: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the cases of every patient who has several, in the order of the names.

    Args:
        names: of cases.
        patients: by case; a case that is not in it counts as a patient of its own.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[patient_of(name) if patients is None else patients.get(name, name)].append(name)
    return {patient: tuple(cases) for patient, cases in groups.items() if len(cases) > 1}


def equal_checksums(checksums: Sequence[tuple[str, int]]) -> list[tuple[str, ...]]:
    """Return the groups of images that share a checksum, in the order of the first ones."""
    groups: dict[int, list[str]] = defaultdict(list)
    for image, checksum in checksums:
        groups[checksum].append(image)
    return [tuple(images) for images in groups.values() if len(images) > 1]
