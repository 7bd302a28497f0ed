"""Which of a site's cases are scans of one patient: what differential privacy protects as one.

A wrong grouping is a wrong guarantee: two scans under two patients' names are protected as two
patients, each for itself. Where names do not tell the patient, the site's file must name a table.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from client.dataset.patients import patient_of, read_patients
from client.site import SiteConfig
from common.errors import ConfigError


def site_patients(site: SiteConfig, names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the cases of every patient, in the order of the names.

    Args:
        site: its file may name a table of patients.
        names: of the cases.

    Raises:
        ConfigError: when the table cannot be read, or lacks a case.
    """
    if site.patients is None:
        return grouped({name: patient_of(name) for name in names})
    table, wanted = read_patients(Path(site.patients)), tuple(names)
    if missing := [name for name in wanted if name not in table]:
        raise ConfigError(
            f"{site.patients}: expected the patient of every case, found none of {missing[0]}"
            + (f" and {len(missing) - 1} others" if missing[1:] else "")
        )
    return grouped({name: table[name] for name in wanted})


def grouped(patients: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Return the cases of every patient, given the patient of every case."""
    groups: dict[str, list[str]] = {}
    for case, patient in patients.items():
        groups.setdefault(patient, []).append(case)
    return tuple(tuple(cases) for cases in groups.values())
