"""Texts that may name a person, and texts of studies, software and scanners that do not."""

import unicodedata

import pytest

from client.dataset.names import date_in, person_in


@pytest.mark.parametrize(
    ("text", "person"),
    [
        ("Mueller^Hans", "Mueller^Hans"),
        ("Müller_Hans_t1.nii.gz", "Müller_Hans"),
        ("Schmidt, Petra", "Schmidt, Petra"),
        ("Frau_Schulz", "Frau_Schulz"),
        ("case-jürgen-2", "jürgen"),
        ("hans.mueller", "hans"),
    ],
)
def test_names_of_persons_are_found(text, person):
    assert person_in(text) == person


@pytest.mark.parametrize(
    "text",
    [
        "BraTS2021_00012_000",
        "BraTS-GLI-00012-000",
        "UPENN-GBM-00001_11",
        "Brats17_2013_10_1",
        "TCGA-02-0003",
        "brats_2013_pat0003_1",
        "Flair_subtrMeanDivStd.nii.gz",
        "hippocampus_001",
        "imagesTr",
        "5.0.10",
        "FSL5.0",
        "none",
        "TE=4.9;Time=120000.000;phase=1",
        "Philips Healthcare Ingenia",
        "SPM12 - 3D normalized",
        "Turbo Spin Echo",
    ],
)
def test_names_of_studies_and_software_are_neither_persons_nor_days(text):
    assert person_in(text) is None
    assert date_in(text) is None


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("19620314_mr", "19620314"),
        ("p-1962-03-14", "1962-03-14"),
        ("14.03.1962", "14.03.1962"),
        ("20211301", None),
        ("2021_0101", None),
        ("1962031", None),
    ],
)
def test_days_are_found_and_other_numbers_are_not(text, day):
    assert date_in(text) == day


def test_a_name_is_found_as_macos_writes_its_umlauts():
    assert person_in(unicodedata.normalize("NFD", "Jörg_Müller_t1")) == "Jörg_Müller"
