"""The page of an inspection: order, escaping, and that nothing is fetched."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.dataset.checks import CaseFacts, Suspicion
from client.dataset.inspection import Inspection
from client.dataset.inspection_page import case_sections, write_page
from client.dataset.thumbnails import draw_planes
from common.errors import Defect
from common.task import load_task

BRATS = load_task("brats-2021")
ORANGE = (230, 159, 0)  # of the first label
NAME = "<b>Öl & Co</b>"
FOUND = Inspection(
    n_cases=3,
    defects=(Defect(NAME, f"data/{NAME}", "one label file", "no such file"),),
    cases=tuple(
        CaseFacts(name, (7, 6, 5), (1.0, 1.0, 2.5), (0, 1), "LPS", {1: 0.5}) for name in "abc"
    ),
    warnings=(Suspicion("c", "data/c", "a label without foreground", "look at it"),),
)


@pytest.fixture(scope="module")
def picture() -> bytes:
    image = np.random.default_rng(0).random((7, 6, 5), np.float32) + 1
    return draw_planes(image, None, BRATS, spacing_mm=(1.0, 1.0, 2.5))


@pytest.fixture
def page(tmp_path: Path, picture: bytes) -> str:
    path = tmp_path / "page.html"
    write_page(path, FOUND, {"a": {"t1": picture}}, BRATS, Path("/data/Öffentlich"))
    return path.read_text(encoding="utf-8")


def test_the_worst_case_comes_first_and_each_says_how_bad_it_is():
    sections = case_sections(FOUND, {})
    assert [(one.name, one.state) for one in sections] == [
        (NAME, "defect"),
        ("c", "warning"),
        ("a", "sound"),
        ("b", "sound"),
    ]


def test_names_are_escaped_and_umlauts_stay(page):
    assert "&lt;b&gt;Öl &amp; Co&lt;/b&gt;</h2>" in page
    assert NAME not in page
    assert "<h1>Inspection of Öffentlich</h1>" in page


def test_the_page_says_that_it_stays_and_what_was_found(page):
    assert "This page stays at the hospital." in page
    assert "3 complete cases; 1 defect, 1 warning." in page
    assert "<b>Warning:</b> <span>a label without foreground; look at it</span>" in page
    assert "<b>Defect:</b> <span>expected one label file, found no such file</span>" in page
    assert "<dd>1 \u00d7 1 \u00d7 2.5</dd>" in page
    assert "<dd>necrosis 0.5</dd>" in page


def test_nothing_is_fetched_and_every_picture_has_words(page):
    assert not re.findall(r"https?://|<link|@import|url\(", page)
    assert re.findall(r'src="([a-z:/]+);base64', page) == ["data:image/webp"]
    assert 'alt="t1 of a: axial, coronal and sagittal plane"' in page
    assert "default-src 'none'" in page


def test_the_same_findings_give_the_same_bytes(tmp_path, page):
    write_page(tmp_path / "again.html", FOUND, {}, BRATS, Path("x"))
    first = (tmp_path / "again.html").read_bytes()
    write_page(tmp_path / "again.html", FOUND, {}, BRATS, Path("x"))
    assert (tmp_path / "again.html").read_bytes() == first


def drawn(image: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Return the pixels (row, column, colour) of three squares of 120 pixels."""
    content = draw_planes(image.astype(np.float32), labels, BRATS, spacing_mm=(1.0, 1.0, 1.0))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def brightest(square: np.ndarray) -> tuple[bool, bool]:
    """Return whether the light lies in the upper half, and whether in the left half."""
    grey = square.sum(axis=2)
    rows, columns = grey.sum(axis=1), grey.sum(axis=0)
    return bool(rows[:60].sum() > rows[60:].sum()), bool(columns[:60].sum() > columns[60:].sum())


def test_the_right_is_on_the_left_and_up_is_anterior_or_superior():
    # Light fills the right, anterior, superior part: high x, y and z of RAS+.
    image = np.full((30, 30, 30), 1.0)
    image[12:, 12:, 12:] = 50
    sheet = drawn(image)
    assert sheet.shape == (120, 360, 3)
    for place in range(3):
        assert brightest(sheet[:, 120 * place : 120 * (place + 1)]) == (True, True)


def test_a_label_is_outlined_in_its_colour_where_it_is_largest():
    image = np.random.default_rng(0).random((30, 30, 30)) * 0.1 + 1
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[3:9, 4:12, 18:28] = 1
    sheet = drawn(image, labels)
    near = np.abs(sheet - ORANGE).max(axis=2) < 60  # WebP loses a little
    assert [bool(near[:, 120 * n : 120 * (n + 1)].any()) for n in range(3)] == [True] * 3
    assert not (np.abs(drawn(image) - ORANGE).max(axis=2) < 60).any()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e38])
def test_an_image_without_anything_to_see_is_drawn_dark(value):
    assert drawn(np.full((4, 5, 6), value)).max() < 40
