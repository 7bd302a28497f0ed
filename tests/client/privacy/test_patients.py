"""Several scans of one patient are one unit, and a table that lacks a case is refused."""

from pathlib import Path

import pytest

from client.agreement import _drawn_split
from client.privacy.patients import site_patients
from client.site import SiteConfig, load_site
from common.codec import write_toml
from common.errors import ConfigError
from simulation.simulate import OPEN_POLICY

SCANS = ("BraTS-GLI-00001-000", "BraTS-GLI-00002-000", "BraTS-GLI-00001-001", "scan-x")


def site(folder: Path, table: str | None = None) -> SiteConfig:
    if table is not None:
        (folder / "patients.csv").write_text(table)
    written = SiteConfig(
        name="alpha",
        data="data",
        state="state",
        policy=OPEN_POLICY,
        patients=None if table is None else "patients.csv",
    )
    write_toml(folder / "site.toml", written)
    return load_site(folder / "site.toml")


def test_names_tell_the_patient_where_there_is_no_table(tmp_path: Path) -> None:
    assert site_patients(site(tmp_path), SCANS) == (
        ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001"),
        ("BraTS-GLI-00002-000",),
        ("scan-x",),
    )


def test_a_table_goes_before_the_names(tmp_path: Path) -> None:
    table = "Subject_ID,Patient_ID\n" + "".join(
        f"{case},{patient}\n" for case, patient in zip(SCANS, "abcb", strict=True)
    )
    assert site_patients(site(tmp_path, table), SCANS) == (
        ("BraTS-GLI-00001-000",),
        ("BraTS-GLI-00002-000", "scan-x"),
        ("BraTS-GLI-00001-001",),
    )


def test_a_table_that_lacks_a_case_is_refused(tmp_path: Path) -> None:
    table = f"Subject_ID,Patient_ID\n{SCANS[0]},a\n"
    with pytest.raises(ConfigError, match="expected the patient of every case, found none of"):
        site_patients(site(tmp_path, table), SCANS)


@pytest.mark.parametrize("seed", range(6))
def test_no_patient_both_trains_and_validates(tiny_study, tmp_path: Path, seed: int) -> None:
    names = [f"BraTS-GLI-{patient:05d}-{scan:03d}" for scan in range(3) for patient in range(8)]
    config = tiny_study.config
    config = tiny_study.config_with(
        federation=type(config.federation)(
            seed=seed, methods=("fedavg",), rounds=1, local_steps=1, held_out=(), min_sites=1
        )
    )
    training, validation = _drawn_split(site(tmp_path), config, names)
    assert {*training, *validation} == set(names)
    # 0.3 of 8 patients are 2, with 3 scans each
    assert (len(training), len(validation)) == (18, 6)
    assert not {name[:-4] for name in training} & {name[:-4] for name in validation}
    assert list(training) == [name for name in names if name in training]
