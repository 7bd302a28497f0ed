from dataclasses import fields, replace

import numpy as np
import pytest

from client.fingerprint.explain import DISCLOSURES, IN_CLEAR, explain
from client.fingerprint.explain_sum import secure_sum_in_words
from common.planning.fingerprint import Fingerprint, fingerprint_of, merge_all
from common.planning.intensity import CtStatistics
from common.planning.release import coarse
from common.task import Task

MRI = Task(
    name="hippocampus",
    version=1,
    channels=("MRI",),
    labels={"background": 0, "anterior": 1},
    regions={"anterior": (1,)},
)
CT = replace(MRI, name="liver", channels=("CT",))


def site(task: Task) -> Fingerprint:
    """Return six cases, 40 to 60 voxels deep, the last one with a clip of metal."""
    depths = (40, 41, 42, 43, 44, 60)
    hu = {
        depth: {"CT": np.array([50.0, 51.0, 52.0, 3000.0 if depth == 60 else 53.0])}
        for depth in depths
    }
    parts = {
        str(depth): fingerprint_of((depth, 9, 9), (depth, 9, 9), (1.0, 1.0, 1.0), hu[depth], task)
        for depth in depths
    }
    return merge_all(parts)


def section(text: str, heading: str) -> str:
    return next(part for part in text.split("\n\n") if part.startswith(f"{heading}: "))


def test_every_field_that_leaves_is_explained_and_nothing_else() -> None:
    record = {field.name for field in fields(Fingerprint)}
    ct = {f"ct.{field.name}" for field in fields(CtStatistics)}
    assert set(DISCLOSURES) == record | ct


@pytest.mark.parametrize("told", DISCLOSURES.values(), ids=DISCLOSURES.keys())
def test_every_explanation_says_what_why_and_what_it_tells_of_a_patient(told) -> None:
    for text in (told.holds, told.needed_for, told.about_one_patient, told.if_coarse or "Nothing."):
        assert text.endswith(".")
        assert text.format(k=5)


def test_an_exact_release_says_that_a_count_of_one_is_one_patient() -> None:
    text = explain(site(MRI), site(MRI), "exact", 5)
    shapes = section(text, "shapes_voxels")
    assert "z 6 values (rarest count 1); y 1 value (rarest count 6)" in shapes
    assert "A count of 1 is the value of one patient's image" in " ".join(shapes.split())
    assert "no case is counted more than 0 voxels away" in shapes
    assert "12 of 19 counts stand for fewer than 5 cases" in " ".join(text.split())


def test_a_coarse_release_says_how_many_share_a_bin_and_how_far_off_it_is() -> None:
    text = explain(site(MRI), coarse(site(MRI), 5), "coarse", 5)
    shapes = section(text, "shapes_voxels")
    assert "z 1 value (rarest count 6)" in shapes
    assert "Each count stands for 5 or more patients" in shapes
    assert "no case is counted more than 18 voxels away" in shapes  # 60, counted at 42
    assert "more than 18 mm away" in section(text, "extents_ticks")
    assert "more than 0 mm away (rounding 0.00005 mm)" in section(text, "spacings_ticks")
    assert "fewer than 5 cases;" not in text


# Secure sum


def plain(text: str) -> str:
    return " ".join(text.split())


def test_a_secure_sum_shows_only_what_is_not_masked() -> None:
    text = explain(site(CT), site(CT), "secure-sum", 5)
    masked = {part.split(": ")[0] for part in text.split("\n\n") if ": masked\n" in part}
    assert masked == {
        "n_cases",
        "n_cropped",
        "shapes_voxels",
        "spacings_ticks",
        "extents_ticks",
        "ct",
        "n_voxels of channel CT",
        "total_hu of channel CT",
        "total_squared_hu2 of channel CT",
        "histogram_hu of channel CT",
    }
    assert {field.name for field in fields(Fingerprint)} - masked == IN_CLEAR
    assert section(text, "channels").startswith("channels: CT\n")
    assert "Of this site's patients, nothing by itself" in plain(section(text, "shapes_voxels"))


def test_a_secure_sum_of_mri_says_that_there_are_no_intensities_to_mask() -> None:
    text = explain(site(MRI), site(MRI), "secure-sum", 5)
    assert section(text, "ct").startswith("ct: no entry")


def test_the_error_of_a_secure_sum_is_that_of_its_grid() -> None:
    text = explain(site(MRI), site(MRI), "secure-sum", 5)
    assert "no case is counted more than 0 voxels away" in section(text, "shapes_voxels")
    assert "no case is counted more than 0 mm away" in section(text, "spacings_ticks")
    assert "no case is counted more than 0.1 mm away" in section(text, "extents_ticks")


def test_an_officer_reads_what_a_secure_sum_protects_against_and_what_not() -> None:
    text = secure_sum_in_words(4)
    for sentence in (
        "at least 4 of them (policy.min_secure_sites), and no site's own counts.",
        "What leaves, masked: 172,790 numbers (176,889 with a CT channel).",
        "If all other sites do, it learns this site's counts.",
        "a coordinator that changes the program could send this site false keys",
        "A count of 1 says that one patient of one of the sites has this value",
        "the numbers of cases that train and validate are told after planning and with every",
        "Voxel sizes are exact up to 1.5 mm (to 0.0001 mm, as in every mode), and up to 20 mm no",
        "no more than 0.0005 mm off. Lengths are exact where all cases share such a voxel size",
    ):
        assert sentence in plain(text)
    assert max(map(len, text.splitlines())) <= 96
    assert explain(site(MRI), site(MRI), "secure-sum", 5).startswith(secure_sum_in_words())


def test_an_mri_fingerprint_says_that_it_holds_no_intensity() -> None:
    text = explain(site(MRI), site(MRI), "exact", 5)
    assert section(text, "ct").startswith("ct: no entry")
    assert "histogram_hu" not in text


def test_the_intensities_of_every_ct_channel_are_explained() -> None:
    text = explain(site(CT), coarse(site(CT), 5), "coarse", 5)
    assert section(text, "n_voxels of channel CT").startswith("n_voxels of channel CT: 24\n")
    histogram = section(text, "histogram_hu of channel CT")
    # 50 x 6, 51 x 6, 52 x 6, then 53 x 5 and 3000 together
    assert "4 values (rarest count 6)" in histogram
    assert "no voxel is counted more than 2947 HU away" in histogram


def test_a_line_fits_a_terminal_and_an_empty_histogram_is_no_entry() -> None:
    none = replace(
        site(CT),
        ct={"CT": CtStatistics(n_voxels=0, total_hu=0, total_squared_hu2=0, histogram_hu={})},
    )
    text = explain(none, none, "exact", 5)
    assert max(map(len, text.splitlines())) <= 96
    assert "histogram_hu of channel CT: no entry" in text
