"""Take the viewer's pictures in docs/viewer, of phantoms.

Brains are drawn into a temporary folder and "predicted" with the mistakes that people look for:
moved, too large, a region and a whole case left out. `consilium view` shows them to a headless
Chromium, which has to be installed with its driver (Debian: chromium, chromium-driver).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from dashboard_pictures import DESKTOP, PHONE, PROJECT, Picture, browser, show, smaller
from scipy.ndimage import binary_dilation

from client.dataset.nifti import read_labels, write_labels
from common.axes import LabelMap
from simulation.phantoms import PhantomSite, PhantomStudy, write_study

WITH_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
OEDEMA, ENHANCING = 2, 4
PICTURES = (  # and which keys are pressed before
    (Picture("case", "", DESKTOP, dark=True), "j"),
    (Picture("disagreement", "", DESKTOP, dark=True), "jjd"),
    (Picture("narrow", "", PHONE, dark=True), "j"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "docs" / "viewer")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_cases(Path(folder))
        with served(Path(folder)) as address:
            for picture, keys in PICTURES:
                path = given.out / f"{picture.name}.png"
                path.write_bytes(taken(address, picture, keys))
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def write_cases(folder: Path) -> None:
    site = PhantomSite(
        name="all",
        n_cases=6,
        spacing_mm=(2.0, 2.0, 2.0),
        gain=(400.0, 450.0, 500.0, 300.0),
        gamma=(1.0, 1.0, 1.0, 1.0),
        noise_fraction=0.04,
        bias_fraction=0.09,
        tumour_radius_mm=24.0,
        tumour_radius_spread=0.3,
        without_enhancing_fraction=0.2,
    )
    study = PhantomStudy(seed=5, field_of_view_mm=(140.0, 168.0, 144.0), sites=(site,))
    write_study(study, folder / "data")
    for number, case in enumerate(sorted((folder / "data").glob("phantom_*"))):
        labels, grid = read_labels(case / f"{case.name}_seg.nii.gz", None)
        if number != 1:
            path = folder / "predictions" / f"{case.name}.nii.gz"
            write_labels(path, mistaken(labels, number), grid)


def mistaken(labels: LabelMap, number: int) -> LabelMap:
    """Return labels with mistakes that grow with the case's number."""
    found = np.roll(labels, number, axis=2)
    around = binary_dilation(found > 0, iterations=1 + number // 2) & (found == 0)
    found[around] = OEDEMA
    if number == 3:
        found[found == ENHANCING] = OEDEMA
    return found


@contextmanager
def served(folder: Path) -> Iterator[str]:
    view = ["view", "data", "--prediction", "predictions"]
    command = [sys.executable, "-m", "consilium", *view]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.terminate()
        process.wait()


def taken(address: str, picture: Picture, keys: str) -> bytes:
    with browser(picture, WITH_WEBGL) as driver:
        driver.get(address)
        wait(driver)
        for key in keys:
            driver.switch_to.active_element.send_keys(key)
            time.sleep(0.5)
            wait(driver)
        time.sleep(3.0)  # drawing without a graphics card
        height = driver.execute_script("return document.documentElement.scrollHeight")
        show(driver, picture, min(int(height), 1300))
        time.sleep(3.0)
        return smaller(driver.get_screenshot_as_png())


def wait(driver: Any) -> None:
    script = "return /^case/.test(document.getElementById('status').innerText)"
    while not driver.execute_script(script):
        time.sleep(0.1)


if __name__ == "__main__":
    main()
