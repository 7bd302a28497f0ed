"""What the served dashboard costs: processor and memory with and without an open page.

Serves 200 small runs and one of 60 sites that logs a round of 121 events every few seconds, and
opens its page in a headless Chromium, which has to be installed with its driver.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from server.events import Event, RoundFinished, SiteTrained, SiteValidated
from simulation.invented_events import InventedRun, dice_of
from simulation.invented_runs import log_line, write_invented

PROJECT = Path(__file__).parents[1]
PORT = 8478
LARGE = InventedRun("large", n_sites=60, n_rounds=1000, methods=("fedavg",), ending="running",
                    n_rounds_left=500)  # fmt: skip
ROUND_S = 5.0  # faster than any real run of 60 sites
LOADED = "return window.did_handshake && document.querySelectorAll('.chart svg path').length > 9"
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        runs = Path(folder)
        for n in range(given.runs):
            write_invented(runs, InventedRun(f"run-{n:03d}"), datetime.now(UTC))
        write_invented(runs, LARGE, datetime.now(UTC) - timedelta(seconds=10))
        with served(runs) as pid, browser(Path(profile)) as driver:
            measure(pid, driver, runs, given.seconds)


def measure(pid: int, driver: Any, runs: Path, seconds: float) -> None:
    time.sleep(10)  # the first reading of all runs
    told("no page open, nothing happens", pid, seconds)
    driver.get(f"http://127.0.0.1:{PORT}/")
    time.sleep(5)
    told("page of all runs open, nothing happens", pid, seconds)
    for attempt in ("first", "second", "third"):
        driver.get("about:blank")
        print(f"page of 60 sites and 1000 rounds, {attempt} time: {load_s(driver):.2f} s")
    done = threading.Event()
    log = runs / "large" / "events.jsonl"
    writer = threading.Thread(target=keep_writing, args=(log, done))
    writer.start()
    told(f"its page open, a round of 121 events every {ROUND_S:.0f} s", pid, seconds)
    heap = driver.execute_script("return performance.memory.usedJSHeapSize") / 2**20
    print(f"browser: {heap:.0f} MiB of JavaScript heap")
    driver.get("about:blank")
    time.sleep(35)  # the page is forgotten after half a minute
    told("the same without a page", pid, seconds)
    done.set()
    writer.join()


def told(what: str, pid: int, seconds: float) -> None:
    before = processor_s(pid)
    time.sleep(seconds)
    share = (processor_s(pid) - before) / seconds
    print(f"{what}: {share:.2%} of a core, {resident_mib(pid):.0f} MiB", flush=True)


def load_s(driver: Any) -> float:
    began = time.perf_counter()
    driver.get(f"http://127.0.0.1:{PORT}/runs/large")
    while not driver.execute_script(LOADED):
        time.sleep(0.01)
    return time.perf_counter() - began


def keep_writing(log: Path, done: threading.Event) -> None:
    round_ = LARGE.n_rounds - LARGE.n_rounds_left
    while not done.wait(ROUND_S):
        round_ += 1
        now = datetime.now(UTC)
        with log.open("ab") as file:
            file.write(b"".join(log_line(now, event) + b"\n" for event in round_events(round_)))


def round_events(round_: int) -> Iterator[Event]:
    for site in LARGE.sites:
        dice = dice_of(LARGE, "fedavg", round_ - 1, site)
        yield SiteValidated(method="fedavg", round=round_ - 1, site=site, dice=dice)
        yield SiteTrained(method="fedavg", round=round_, site=site, n_cases=20, n_steps=50,
                          loss=-0.5, update_norm=1.0, seconds=4.0, upload_bytes=10**8)  # fmt: skip
    yield RoundFinished(method="fedavg", round=round_, n_sites=60, seconds=ROUND_S)


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@contextmanager
def served(runs: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "consilium", "dashboard", str(runs), "--port", str(PORT)]
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        print(process.stderr.readline().strip() if process.stderr else "")
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
