"""Take the dashboard's pictures in docs/dashboard.

Runs that never ran are written to a temporary folder, served on loopback and opened in a headless
Chromium, which has to be installed with its driver (Debian: chromium, chromium-driver).
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from simulation.invented_events import InventedRun
from simulation.invented_runs import CORRUPT_LINES, older_lines, write_invented

PROJECT = Path(__file__).parents[1]
PORT = 8479
DESKTOP, PHONE = 1280, 390  # pixels
TALLEST = 1500
N_COLOURS = 200  # of a picture: nobody sees the difference, and it takes a third
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@dataclass(frozen=True)
class Picture:
    """A page and how it is shown."""

    name: str
    path: str
    width: int = DESKTOP
    dark: bool = False


PICTURES = (
    Picture("runs", "/"),
    Picture("progress", "/runs/glioma-60-sites"),
    Picture("progress-few-sites", "/runs/glioma-live"),
    Picture("sites", "/runs/glioma-live/sites"),
    Picture("rounds", "/runs/glioma-live/rounds"),
    Picture("updates", "/runs/glioma-live/updates"),
    Picture("held-out", "/runs/glioma-finished/held-out"),
    Picture("ranking", "/runs/glioma-finished/ranking"),
    Picture("plan", "/runs/glioma-finished/plan"),
    Picture("alarms", "/runs/glioma-live/alarms"),
    Picture("log", "/runs/glioma-live/log"),
    Picture("unreadable", "/runs/glioma-older"),
    Picture("compare", "/compare?a=glioma-finished&b=glioma-private"),
    Picture("progress-dark", "/runs/glioma-60-sites", dark=True),
    Picture("runs-phone", "/", PHONE),
    Picture("progress-phone", "/runs/glioma-live", PHONE),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "docs" / "dashboard")
    parser.add_argument("--only", nargs="*", default=None, help="names of pictures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder))
        with served(Path(folder)) as address:
            for picture in PICTURES:
                if given.only is None or picture.name in given.only:
                    path = given.out / f"{picture.name}.png"
                    path.write_bytes(taken(address, picture))
                    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def write_runs(folder: Path) -> None:
    now = datetime.now(UTC)
    methods = ("fedavg", "fedprox", "local-only")
    live = InventedRun("glioma-live", n_sites=6, n_rounds=60, methods=("fedavg", "fedprox"),
                       ending="running", n_rounds_left=22, failing="site-03")  # fmt: skip
    write_invented(folder, live, now - timedelta(minutes=14))
    finished = InventedRun("glioma-finished", n_rounds=40, methods=methods)
    write_invented(folder, finished, now - timedelta(days=6))
    private = InventedRun("glioma-private", n_rounds=50, methods=("fedavg",), private=True,
                          budget_used=0.86, seed=3)  # fmt: skip
    write_invented(folder, private, now - timedelta(days=2))
    large = InventedRun("glioma-60-sites", n_sites=60, n_rounds=1000, methods=("fedavg",),
                        ending="running", n_rounds_left=230, round_s=900.0)  # fmt: skip
    write_invented(folder, large, now - timedelta(minutes=3))
    masked = InventedRun("glioma-masked", n_rounds=25, methods=("fedavg",), masked=True)
    write_invented(folder, masked, now - timedelta(days=9))
    waiting = InventedRun("glioma-waiting", ending="waiting")
    write_invented(folder, waiting, now - timedelta(minutes=2))
    older = InventedRun("glioma-older", n_rounds=12, methods=("fedavg",))
    spoilt = (*CORRUPT_LINES, *older_lines(now - timedelta(days=30)))
    write_invented(folder, older, now - timedelta(days=30), spoilt=spoilt)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "consilium", "dashboard", str(folder), "--port", str(PORT)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        print(process.stderr.readline().strip() if process.stderr else "")
        yield f"http://127.0.0.1:{PORT}"
    finally:
        process.terminate()
        process.wait()


def taken(address: str, picture: Picture) -> bytes:
    with browser(picture) as driver:
        driver.get(address + picture.path)
        while not driver.execute_script(
            "return window.did_handshake && !!document.querySelector('main')"
        ):
            time.sleep(0.05)
        time.sleep(1.5)  # charts draw
        height = int(driver.execute_script("return document.documentElement.scrollHeight"))
        show(driver, picture, min(max(height, 500), TALLEST if picture.width == DESKTOP else 2400))
        time.sleep(1.0)
        return smaller(driver.get_screenshot_as_png())


@contextmanager
def browser(picture: Picture, more_flags: Sequence[str] = ("--disable-gpu",)) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, *more_flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(
            options=options, service=Service(str(shutil.which("chromedriver")))
        )
        try:
            show(driver, picture, 900)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if picture.dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            yield driver
        finally:
            driver.quit()


def show(driver: Any, picture: Picture, height: int) -> None:
    size = {"width": picture.width, "height": height, "deviceScaleFactor": 1}
    size["mobile"] = picture.width == PHONE
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def smaller(png: bytes) -> bytes:
    buffer = io.BytesIO()
    whole = Image.open(io.BytesIO(png)).convert("RGB")
    few = whole.quantize(N_COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
