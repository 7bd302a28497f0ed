"""The page of scores: what it says, the order of cases, and that a name cannot break out of it."""

import re
from pathlib import Path

import numpy as np
import pytest

from client.dataset.nifti import grid_of, write_labels
from client.scoring.score import FolderScores, Scoring, score_folders
from client.scoring.score_page import counts, results_by_region, worst_first, write_page
from common.evaluation.further_metrics import wanted_metrics
from common.task import load_task

NASTY = "<img src=x onerror=alert(1)>"
SCORING = Scoring(load_task("brats-2021"), "max", further=wanted_metrics(["nsd"], 1.0, "glioma"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return four cases: perfect, moved, a false alarm, and one without a prediction."""
    folder = tmp_path_factory.mktemp("scores")
    labels = np.zeros((4, 5, 9), np.uint8)
    labels[1:3, 2, 1:7] = [2, 2, 1, 1, 4, 4]
    without = np.where(labels == 4, 1, labels).astype(np.uint8)
    grid = grid_of((3.0, 2.0, 1.0), labels.shape)
    for name, true, found in (
        ("perfect", labels, labels),
        (NASTY, labels, np.roll(labels, 3, axis=2)),
        ("false-alarm", without, labels),
        ("missing", labels, None),
    ):
        write_labels(folder / "true" / f"{name}.nii.gz", true, grid)
        if found is not None:
            write_labels(folder / "found" / f"{name}.nii.gz", found, grid)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> FolderScores:
    return score_folders(folder / "true", folder / "found", SCORING)


@pytest.fixture(scope="module")
def page(folder: Path, found: FolderScores) -> str:
    write_page(folder / "page.html", found, SCORING, folder / "true", folder / "found")
    return (folder / "page.html").read_text()


def test_the_worst_case_comes_first(found: FolderScores) -> None:
    rows = worst_first(found)
    assert [row.name for row in rows] == ["missing", NASTY, "false-alarm", "perfect"]
    assert [row.is_unpredicted for row in rows] == [True, False, False, False]


def test_cases_without_an_answer_are_counted(found: FolderScores) -> None:
    enhancing = counts(results_by_region(found)["ET"])
    assert enhancing.n_empty_references == enhancing.n_false_alarms == 1
    assert (enhancing.n_missed, enhancing.n_unpredicted) == (0, 1)


def test_the_page_says_what_its_numbers_mean(page: str) -> None:
    assert "maximum of the two directed 95th percentiles" in page
    assert "rules brats-2021" in page
    assert "HD95 373.13 mm" in page
    assert "tolerance of 1 mm" in page
    assert "rules for glioma" in page
    assert "missing: no prediction" in page


def test_the_page_has_a_row_for_every_metric_and_region(page: str) -> None:
    for words in ("Dice (fraction)", "HD95 (mm)", "Normalised surface Dice", "Lesion-wise HD95"):
        assert '<th scope="rowgroup"' in page
        assert words in page
    assert "mean of the regions" in page
    assert page.count("<svg") == 2


def test_the_page_is_self_contained(page: str) -> None:
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert not re.search(r"https?://|url\((?!#)|@import|<script", page)
    assert "prefers-color-scheme: dark" in page


def test_a_name_cannot_break_out_of_the_page(page: str) -> None:
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_the_same_scores_give_the_same_bytes(
    page: str, folder: Path, found: FolderScores, tmp_path: Path
) -> None:
    write_page(tmp_path / "again.html", found, SCORING, folder / "true", folder / "found")
    assert (tmp_path / "again.html").read_text() == page
