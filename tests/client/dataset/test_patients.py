"""Which cases belong to one patient."""

import pytest

from client.dataset.patients import patient_of, read_patients, repeated_patients
from common.errors import ConfigError


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00012-001", "BraTS-GLI-00012"),
        ("BraTS2021_00012_000", "BraTS2021_00012"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("brats_2013_pat0003_1", "brats_2013_pat0003"),
        ("sub-01_ses-02", "sub-01"),
        ("BraTS2021_00012", "BraTS2021_00012"),
        ("FeTS2022_00012", "FeTS2022_00012"),
        ("TCGA-02-0003", "TCGA-02-0003"),
        ("Brats17_2013_10_1", "Brats17_2013_10_1"),
        ("brats_2013_001", "brats_2013_001"),
        ("20190312_001", "20190312_001"),
        ("hippocampus_001", "hippocampus_001"),
        ("site2_001", "site2_001"),
    ],
)
def test_the_name_of_a_case_tells_the_patient(case, patient):
    assert patient_of(case) == patient


def test_only_patients_with_several_cases_are_returned_in_the_order_of_the_cases():
    names = ["b_0002_1", "a_0001_1", "b_0002_2", "c"]
    assert repeated_patients(names) == {"b_0002": ("b_0002_1", "b_0002_2")}
    assert repeated_patients(names, {"c": "p", "a_0001_1": "p"}) == {"p": ("a_0001_1", "c")}
    assert repeated_patients([]) == {}


def test_a_table_is_read_with_any_column_order_and_a_mark_of_its_encoding(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes("\ufeffPatient_ID,Site,Subject_ID\r\nMü,1,a\r\nMü,1,b\r\n".encode())
    assert read_patients(path) == {"a": "Mü", "b": "Mü"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Subject_ID,Patient\na,b\n", "expected a column Patient_ID, found Subject_ID, Patient"),
        (b"", "expected a column Subject_ID, found none"),
        (b"Subject_ID,Patient_ID\na,\n", "line 2: expected one case and its one patient"),
        (b"Subject_ID,Patient_ID\na,1\na,2\n", "line 3: expected one case and its one patient"),
        (b"Subject_ID,Patient_ID\n\xff,2\n", "expected a CSV in UTF-8"),
    ],
)
def test_a_broken_table_is_refused(tmp_path, content, message):
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_patients(path)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a readable CSV, found No such file"):
        read_patients(tmp_path / "p.csv")
