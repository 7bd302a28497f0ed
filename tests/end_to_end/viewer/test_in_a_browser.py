"""The viewer in a real browser: what a person sees and presses; nothing leaves loopback."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from client.dataset.nifti import read_labels, write_labels

PROJECT = Path(__file__).parents[3]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",  # WebGL2 without a graphics card
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1000,800",
)
TIMEOUT_S = 60  # drawing without a graphics card, beside other tests

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)


@pytest.fixture(scope="module")
def address(tiny_study, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve three phantoms: one predicted well, one moved, one not predicted."""
    folder = tmp_path_factory.mktemp("viewed")
    for name, shift in zip(tiny_study.sites["alpha"], (0, 3, None), strict=True):
        shutil.copytree(tiny_study.data / name, folder / "data" / name)
        labels, grid = read_labels(folder / "data" / name / f"{name}_seg.nii.gz", None)
        if shift is not None:
            moved = np.roll(labels, shift, axis=2)
            write_labels(folder / "predictions" / f"{name}.nii.gz", moved, grid)
    command = [sys.executable, "-m", "consilium", "view", folder / "data"]
    with subprocess.Popen(
        [*command, "--prediction", folder / "predictions"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    ) as viewer:
        yield viewer.stdout.readline().strip()
        viewer.terminate()


@pytest.fixture(scope="module")
def browser(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        opened.get(address)
        yield opened
    finally:
        opened.quit()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"expected that {what}"
        time.sleep(0.1)


def text(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def press(browser: webdriver.Chrome, *keys: str) -> None:
    browser.find_element(By.TAG_NAME, "body").send_keys(*keys)


def picture(browser: webdriver.Chrome) -> np.ndarray:
    """Return the canvas as a person sees it: rows, columns, red green blue."""
    png = browser.find_element(By.ID, "picture").screenshot_as_png
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def coloured(pixels: np.ndarray) -> int:
    """Count the pixels that are no shade of grey; the cross hair is nearly one."""
    return int((np.ptp(pixels, axis=2) > 60).sum())


def test_the_worst_case_is_opened_and_keys_lead_through_cases_slices_and_overlays(browser):
    until(lambda: text(browser, "status") == "case 1 of 3, t1", "the first case is drawn")
    names = [
        row.text.split("\n")[0] for row in browser.find_elements(By.CSS_SELECTOR, "#list .name")
    ]
    assert "No prediction" in text(browser, "case")
    press(browser, "j")
    until(lambda: text(browser, "status") == "case 2 of 3, t1", "j opens the next case")
    assert names[1] in text(browser, "case")
    assert "reference: " in text(browser, "position")
    seen = picture(browser)
    assert np.ptp(seen) > 150
    assert (seen.max(axis=2) > 60).mean() > 0.05  # a head, and not only letters
    assert coloured(seen) > 500

    press(browser, "o")
    until(lambda: coloured(picture(browser)) < 50, "o hides the overlays")
    press(browser, "o", "d")
    until(lambda: "disagreement: " in text(browser, "position"), "d shows the disagreement")
    assert browser.find_element(By.ID, "difference-colours").is_displayed()

    height = text(browser, "position").split(" mm")[0]
    press(browser, Keys.ARROW_UP)
    until(lambda: text(browser, "position").split(" mm")[0] != height, "the slice moves up")
    press(browser, "4")
    until(lambda: text(browser, "status") == "case 2 of 3, flair", "4 shows the fourth channel")
    press(browser, Keys.ARROW_RIGHT)
    until(lambda: text(browser, "status") == "case 3 of 3, flair", "the third case is drawn")
    press(browser, "k", "k")
    until(lambda: text(browser, "status") == "case 1 of 3, flair", "k goes back")


def test_no_request_left_loopback_and_no_policy_was_broken(browser, address):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and event["params"].get("documentURL") == address
    }
    assert any(url.endswith("assets/niivue.js") for url in asked)
    assert {urlsplit(url).hostname for url in asked if not url.startswith("data:")} == {"127.0.0.1"}
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
