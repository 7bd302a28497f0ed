"""What the viewer answers to whom: addresses, headers, secrets, hosts."""

import asyncio
import gzip
import hashlib
import re
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

import client.viewer
from client.dataset.nifti import grid_of, write_image
from client.viewer.application import ASSETS, application
from client.viewer.listing import ListedCase, Listing, list_cases
from common.case import Case
from common.task import load_task

TOKEN = "a-secret-of-this-start"  # noqa: S105 # of tests
HOME = f"/{TOKEN}/"
BRATS = load_task("brats-2021")
NASTY = "<img src=x onerror=alert(1)>"
ASSET_FOLDER = Path(client.viewer.__file__).parent / "assets"


def asked(
    listing: Listing, *paths: str, host: str = "127.0.0.1:8000", method: str = "GET"
) -> list[httpx.Response]:
    """Ask the application itself, without any network."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(application(listing, TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as browser:
            return [await browser.request(method, path) for path in paths]

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def listing(cases) -> Listing:
    return list_cases(cases.data, BRATS, cases.predictions, None, lambda *_: None)


def test_every_answer_forbids_caching_and_everything_from_elsewhere(listing):
    paths = (
        HOME,
        f"{HOME}list",
        f"{HOME}case/3",
        f"{HOME}case/3/image/0.nii",
        "/wrong/",
        HOME[:-1],
    )
    for answer in asked(listing, *paths):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        assert "script-src 'self';" in policy
        assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/list",
        "/case/0",
        "/case/0/image/0.nii",
        "/wrong/case/0",
        "/assets/niivue.js",
        f"//{TOKEN}/",
    ],
)
def test_without_the_secret_nothing_is_answered(listing, path):
    (answer,) = asked(listing, path)
    assert answer.status_code == 404
    assert "expected the whole address" in answer.text
    assert TOKEN not in answer.text


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:8000",
        "127.0.0.1.attacker.example",
        "10.0.0.7",
        "[::2]",
    ],
)
def test_a_name_that_was_made_to_point_here_is_refused(listing, host):
    (answer,) = asked(listing, HOME, host=host)
    assert answer.status_code == 421
    assert "phantom" not in answer.text


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:8000", "[::1]"]
)
def test_loopback_is_answered_under_each_of_its_names(listing, host):
    (answer,) = asked(listing, HOME, host=host)
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(listing, method):
    (answer,) = asked(listing, f"{HOME}case/0", method=method)
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "assets/../listing.py",
        "assets/%2e%2e/listing.py",
        "assets/..%2flisting.py",
        "assets/README.md",
        "assets//etc/passwd",
        "case/../../../../etc/passwd",
        "case/6",
        "case/-1",
        "case/0/image/4.nii",
        "case/0/reference.nii",
        "list?region=liver",
    ],
)
def test_what_is_not_listed_does_not_exist(listing, path):
    (answer,) = asked(listing, HOME + path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_volumes_are_files_in_the_grid_of_the_case(listing):
    image, marks = asked(listing, f"{HOME}case/3/image/1.nii", f"{HOME}case/3/marks.nii")
    shown, labels = (
        nib.Nifti1Image.from_bytes(image.content),
        nib.Nifti1Image.from_bytes(marks.content),
    )
    assert shown.shape == (9, 3, 3)  # the head, and what the prediction marks beside it
    assert shown.get_fdata().max() == 200
    assert labels.shape == (9, 5, 4)
    assert labels.header.get_zooms() == (1.0, 2.0, 3.0)
    assert marks.headers["content-encoding"] == "gzip"


def test_a_case_tells_its_marks_its_scores_and_where_to_look(listing):
    moved, missing = (answer.json() for answer in asked(listing, f"{HOME}case/3", f"{HOME}case/2"))
    assert moved["is_compared"] is True
    assert moved["shape_zyx"] == [4, 5, 9]
    found = {(mark["reference"], mark["prediction"]) for mark in moved["marks"]}
    assert found == {(0, 0), (2, 0), (1, 0), (1, 2), (4, 2), (4, 1), (0, 1), (0, 4)}
    differences = {mark["difference"] for mark in moved["marks"]}
    assert differences == {0, 1, 2, 3}
    assert moved["focus_mm"][1:] == [4.0, 3.0]
    assert "9x5x4 voxels of 1x2x3 mm" in moved["html"]
    assert missing["is_compared"] is False
    assert "No prediction" in missing["html"]


def test_the_list_is_in_the_order_that_was_asked_for(listing):
    by_dice, by_hd95 = asked(listing, f"{HOME}list", f"{HOME}list?metric=hd95&region=ET")

    def names(answer: httpx.Response) -> list[str]:
        return re.findall(r'class="name">([^<]+)<', answer.text)

    assert names(by_dice) == ["elsewhere", "missing", "moved", "false-alarm", "perfect", "open"]
    assert names(by_hd95)[:3] == ["elsewhere", "missing", "false-alarm"]


def test_a_name_cannot_break_out_of_the_page(tmp_path):
    image = tmp_path / "image.nii.gz"
    write_image(image, np.ones((2, 3, 4), np.float32), grid_of((1.0, 1.0, 1.0), (2, 3, 4)))
    case = ListedCase(Case(NASTY, (image,) * 4, None), faults=(NASTY,))
    nasty = Listing(Path(NASTY), BRATS, (case,), with_predictions=True, warnings=())
    page, rows, words = asked(nasty, HOME, f"{HOME}list", f"{HOME}case/0")
    for text in (page.text, rows.text, words.json()["html"]):
        assert "<img" not in text
        assert "&lt;img src=x" in text


def test_a_damaged_file_is_answered_in_one_line_that_names_it(tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8b nothing")
    case = ListedCase(Case("broken", (broken,) * 4, None))
    found = Listing(tmp_path, BRATS, (case,), with_predictions=False, warnings=())
    for answer in asked(
        found, f"{HOME}case/0", f"{HOME}case/0/image/0.nii", f"{HOME}case/0/marks.nii"
    ):
        assert answer.status_code == 422
        assert "broken.nii.gz: expected" in answer.text
        assert "\n" not in answer.text


def test_niivue_is_the_file_that_its_note_says(listing):
    note = (ASSET_FOLDER / "README.md").read_text()
    packed = (ASSET_FOLDER / ASSETS["niivue.js"][0]).read_bytes()
    assert len(packed) < 2_000_000
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() in note
    (answer,) = asked(listing, f"{HOME}assets/niivue.js")
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "BSD 2-Clause" in (ASSET_FOLDER / "niivue-licences.txt").read_text()


def test_the_page_names_nothing_outside(listing):
    page, script, style = asked(
        listing, HOME, f"{HOME}assets/viewer.js", f"{HOME}assets/viewer.css"
    )
    for answer in (page, script, style):
        assert answer.status_code == 200
        assert not re.search(r"https?://|//[a-z]+\.", answer.text)
    assert "<style" not in page.text
    assert not re.search(r"\son[a-z]+=|style=", page.text)
