"""What reading logs costs: the dashboard, and for the large run the coordinator.

A run of 60 sites and 1,000 rounds, and 200 small runs, that never ran are written first. Times are
of the wall clock and of the processor; memory is what the process takes beyond what it took before
it read anything.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from server.dashboard.alarms import Limits
from server.dashboard.log_page import LogQuery
from server.dashboard.store import RunStore
from server.event_log import read_events
from server.events import RoundFinished, SiteTrained
from server.run_folder import RunFolder
from simulation.invented_events import InventedRun
from simulation.invented_runs import log_line, write_invented

T = TypeVar("T")
LOG = logging.getLogger("benchmark")
LARGE = InventedRun(
    "large", n_sites=60, n_rounds=1000, methods=("fedavg",), ending="running", n_rounds_left=1
)
SMALL = InventedRun("small", n_rounds=10)
POLL_S = 1.0  # how often a page that is open asks


def resident_bytes() -> int:
    """Return the resident memory of this process now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def timed(what: str, act: Callable[[], T]) -> T:
    """Return what was made; print how long it took and how much memory it left."""
    before, wall, cpu = resident_bytes(), time.perf_counter(), time.process_time()
    made = act()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = (resident_bytes() - before) / 2**20
    LOG.info("%-46s %7.3f s, processor %7.3f s, memory %+6.1f MiB", what, wall, cpu, grown)
    return made


def opened(folder: Path, now: datetime) -> RunStore:
    """Return a store that has read everything."""
    store = RunStore(folder, Limits())
    store.poll(now)
    return store


def append_round(run: RunFolder, round_: int, now: datetime) -> None:
    """Append the answers of all sites, and the round's end."""
    lines = [
        log_line(
            now,
            SiteTrained(
                method="fedavg",
                round=round_,
                site=site,
                n_cases=20,
                n_steps=50,
                loss=-0.5,
                update_norm=1.0,
                seconds=200.0,
                upload_bytes=10**8,
            ),
        )
        for site in LARGE.sites
    ]
    end = RoundFinished(method="fedavg", round=round_, n_sites=60, seconds=300.0)
    with run.events.open("ab") as file:
        file.write(b"\n".join([*lines, log_line(now, end), b""]))


def idle_share(store: RunStore, now: datetime, seconds: float) -> float:
    """Return the share of one core that polling takes while nothing happens."""
    wall, cpu = time.perf_counter(), time.process_time()
    n_polls = round(seconds / POLL_S)
    for n in range(n_polls):
        store.poll(now + timedelta(seconds=n * POLL_S))
        time.sleep(max(0.0, wall + (n + 1) * POLL_S - time.perf_counter()))
    return (time.process_time() - cpu) / (time.perf_counter() - wall)


def measure_large(folder: Path, now: datetime) -> None:
    """Print what one run of 60 sites and 1,000 rounds costs."""
    writer = get_context("spawn").Process(target=write_invented, args=(folder, LARGE, now))
    writer.start()  # another process, so that its memory is not used again here
    writer.join()
    run = RunFolder(folder / LARGE.name)
    size = run.events.stat().st_size / 2**20
    LOG.info("60 sites, 1,000 rounds: %.1f MiB of events", size)
    store = timed("first reading", lambda: opened(folder, now))
    timed("first page of it", lambda: store.detail("large", now))
    timed("the coordinator's strict reading of it", lambda: sum(1 for _ in read_events(run.events)))
    append_round(run, 1000, now)
    timed("one more round, read", lambda: store.poll(now))
    timed("its page", lambda: store.detail("large", now))
    query = LogQuery(text="nothing that is there")
    timed("a search in vain, at most", lambda: store.search("large", query, now))


def measure_small(folder: Path, now: datetime, seconds: float) -> None:
    """Print what 200 small runs cost: half of them finished, half in a round."""
    for n in range(200):
        ending = replace(SMALL, name=f"run-{n:03d}", ending="running" if n % 2 else "finished")
        write_invented(folder, ending, now)
    LOG.info("200 runs of 4 sites and 20 rounds, half of them in a round")
    store = timed("first reading", lambda: opened(folder, now))
    share = idle_share(store, now, seconds)
    LOG.info("nothing happens, asked every %.0f s: %.2f %% of a core", POLL_S, 100 * share)


def main() -> None:
    """Write the runs and measure."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--idle-seconds", type=float, default=60)
    seconds: float = parser.parse_args().idle_seconds
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as folder:
        write_invented(Path(folder), SMALL, now)
        opened(Path(folder), now).detail("small", now)  # loads what is loaded once
    with tempfile.TemporaryDirectory() as folder:
        measure_large(Path(folder), now)
    with tempfile.TemporaryDirectory() as folder:
        measure_small(Path(folder), now, seconds)


if __name__ == "__main__":
    main()
