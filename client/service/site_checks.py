"""Checks of the site's own file, its data, its disk and its accelerator."""

import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from client.caching.space import GIB, at_most_bytes, in_words, used_bytes
from client.dataset.guess import task_of
from client.dataset.inspection import Inspection, Progress, inspect_folder
from client.dataset.layouts import find_cases
from client.dataset.nifti import read_grid
from client.service.findings import Finding, failed, ok, warning
from client.site import Agreement, SiteConfig, load_site
from common.case import Case
from common.codec import read_json
from common.errors import ConfigError, ConsiliumError, Defect
from common.kit import SITE_FILE, SiteKit
from common.task import Task

FILL_IN = "FILL IN"
SMALLEST_DISK_BYTES = 5 * GIB  # logs, and two rounds of a model with its optimiser
FLOAT_BYTES = 4
N_DEFECTS = 20  # lines; `consilium inspect` lists all
ASK_TORCH = """
import json
from client.device import accelerator_memory_gb
print(json.dumps(accelerator_memory_gb()))
"""


@dataclass(frozen=True)
class OwnSite:
    """The site's own file as it could be read."""

    config: SiteConfig | None
    finding: Finding


def check_site_file(kit: SiteKit, folder: Path) -> OwnSite:
    """Check that the hospital has filled in its own file."""
    path = folder / SITE_FILE
    try:
        text = path.read_text(encoding="utf-8")
        left = [f"line {n}: {line}" for n, line in _lines(text) if FILL_IN in line]
        if left:
            mend = f"write into {path} what these lines ask for"
            return OwnSite(None, failed("site.toml", "\n".join(left), mend))
        site = load_site(path)
    except (OSError, UnicodeDecodeError, ConsiliumError) as error:
        found = getattr(error, "strerror", None) or str(error)
        return OwnSite(None, failed("site.toml", found, f"mend {path}"))
    if site.name != kit.site:
        found = f"names the site {site.name!r}, the kit is for {kit.site!r}"
        return OwnSite(None, failed("site.toml", found, f'write name = "{kit.site}" into {path}'))
    return OwnSite(site, _folders(site, text, folder))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a TOML file that say something, with their numbers."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.strip().startswith("#"):
            yield number, line.strip()


def _folders(site: SiteConfig, text: str, folder: Path) -> Finding:
    """Say where data and state are; only data belong outside the kit."""
    found = f"site {site.name}, data {site.data}, state {site.state}"
    if _absolute(str(tomllib.loads(text)["data"])):
        return ok("site.toml", found)
    found += f"\ndata: a relative folder counts from {folder.resolve()}"
    return warning("site.toml", found, "write the whole path of data, beginning with /")


def _absolute(folder: str) -> bool:
    return Path(folder).expanduser().is_absolute()


def newest_agreement(site: SiteConfig) -> Agreement | None:
    """Return what was agreed on last, or None before any run."""
    kept = sorted(site.state_folder.glob("runs/*/agreed.json"), key=lambda p: p.stat().st_mtime)
    try:
        return read_json(Agreement, kept[-1]) if kept else None
    except ConsiliumError:  # of another version of the program
        return None


def task_here(site: SiteConfig) -> Task:
    """Return the task of the last run, or what the folder says about itself."""
    agreement = newest_agreement(site)
    return agreement.terms.task if agreement else task_of(site.data_folder, None)


def check_data(site: SiteConfig, progress: Progress | None = None) -> Finding:
    """Open every file of every case and say all that is wrong."""
    try:
        task = task_here(site)
        found = inspect_folder(site.data_folder, task, site.cases, progress=progress)
    except (OSError, ConsiliumError) as error:
        return failed("data", str(error), f"mend data in {SITE_FILE}, or the folder")
    return _of_data(site, task, found)


def _of_data(site: SiteConfig, task: Task, found: Inspection) -> Finding:
    cases = f"{found.n_cases} cases of task {task.name}"
    if found.defects:
        lines = [f"{cases}, {len(found.defects)} defects", *_first(found.defects)]
        mend = f"mend them, or leave these cases out with cases = [...] in {SITE_FILE}"
        return failed("data", "\n".join(lines), mend)
    if not found.n_cases:
        return failed("data", f"no cases of task {task.name}", f"mend data in {SITE_FILE}")
    if found.warnings:
        look = f"run: consilium inspect {site.data}"
        return warning("data", f"{cases}, no defects, {len(found.warnings)} to look at", look)
    return ok("data", f"{cases}, no defects")


def _first(defects: Sequence[Defect]) -> list[str]:
    shown = [str(defect) for defect in defects[:N_DEFECTS]]
    left = len(defects) - len(shown)
    return [*shown, f"and {left} more: consilium inspect lists all"] if left else shown


def check_disk(site: SiteConfig) -> Finding:
    """Check that the state folder can be written and holds the cache."""
    try:
        site.state_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=site.state_folder):
            pass
    except OSError as error:
        found = f"{site.state}: cannot be written: {error.strerror}"
        return failed("disk", found, f"give this user the right, or change state in {SITE_FILE}")
    free = shutil.disk_usage(site.state_folder).free
    needed, how = _needed_bytes(site)
    found = f"{in_words(free)} free for {site.state}, {how}"
    if free < SMALLEST_DISK_BYTES:
        mend = f"make room: at least {in_words(SMALLEST_DISK_BYTES)} beside the cache"
        return failed("disk", found, mend)
    if free < needed:
        return warning("disk", found, f"make room, or move state in {SITE_FILE} to a larger disk")
    return ok("disk", found)


def _needed_bytes(site: SiteConfig) -> tuple[float, str]:
    """Return how much the cache may still grow, and in words how that is known."""
    agreement = newest_agreement(site)
    try:
        task = task_here(site)
        cases = find_cases(site.data_folder, task, site.cases).cases
        if agreement is None:
            needed = sum(_as_it_lies(case) * len(task.channels) for case in cases)
            return needed, f"the cache takes about {in_words(needed)} at most before a plan is made"
        plan, configuration = agreement.plan, agreement.configuration
        whole = sum(at_most_bytes(case, task, plan, configuration) for case in cases)
    except ConsiliumError:
        return 0, "the cache's size is not known before the data can be read"
    needed = max(0, whole - used_bytes(site.state_folder / "cache"))
    return needed, f"the cache of the agreed plan takes {in_words(needed)} more at most"


def _as_it_lies(case: Case) -> int:
    return prod(read_grid(case.images[0]).shape_zyx) * FLOAT_BYTES


def accelerator_memory_gb() -> float | None:
    """Return what `client.device.accelerator_memory_gb` says, asked in a process of its own.

    `site start` asks once and lives for months; torch would take 200 MB of it all that time.

    Raises:
        ConfigError: when that process fails, with its last line.
    """
    asked = subprocess.run(
        [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        said = asked.stderr.strip().rpartition("\n")[2]
        raise ConfigError(f"expected PyTorch to look for a card, found: {said}")
    found: float | None = json.loads(asked.stdout.splitlines()[-1])
    return found


def check_accelerator(site: SiteConfig) -> Finding:
    """Check on what training would run, and whether the agreed plan fits there."""
    try:
        there = accelerator_memory_gb()
    except ConfigError as error:
        return failed("accelerator", str(error), "install the package again, with its PyTorch")
    if there is None:
        return warning(
            "accelerator",
            "none: training would run on the CPU, some 20 to 50 times slower; the others would "
            "wait for this site, or go on without it",
            "install the driver and the PyTorch build of your card, or tell the coordinator",
        )
    used = min(there, site.memory_gb or there)
    agreement = newest_agreement(site)
    if agreement is None or agreement.plan.planned_for.memory_gb <= used:
        return ok("accelerator", f"{used} GB for training")
    planned = agreement.plan.planned_for.memory_gb
    return warning(
        "accelerator",
        f"{used} GB for training, the agreed plan was made for {planned} GB",
        f"free the card, or mend memory_gb in {SITE_FILE}; tell the coordinator if it stays so",
    )
