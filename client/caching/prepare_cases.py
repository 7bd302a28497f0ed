"""Filling a site's cache: every case prepared once, by several processes, whole or not at all.

An entry is written into a temporary folder (`scratch.py`) and renamed to its place, so a
preparation can be killed at any moment, run twice at once, and be started again. An entry's place
is named by all that its content depends on: the plan, the files' content, and no name.
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Final, TypeAlias

from threadpoolctl import ThreadpoolController

from client.caching.cache import SCHEMA, CacheEntry, open_entry, whole_entry
from client.caching.digests import Content, contents_of, facts_of
from client.caching.entry_files import Files, arrays_of, discard_entry, write_entry
from client.caching.entry_record import Meta
from client.caching.scratch import sweep
from client.caching.space import at_most_bytes, available_bytes, in_words, shortage, used_bytes
from client.caching.workers import by_processes
from client.dataset.nifti import read_labels, read_scan, same_grid
from client.parallel import usable_cores
from client.preparation.preprocess import Prepared, prepare
from common.case import Case
from common.codec import canonical_json
from common.errors import DataError, Defect, DiskError
from common.planning.plan import AnyConfiguration, Configuration2d, Plan
from common.task import Task

PARALLEL_FROM_BYTES: Final = 2**29  # before compression; below, starting processes takes longer
THREADS: Final = ThreadpoolController()  # of the libraries that numpy has loaded by now
TURN: Final = Lock()
SAMPLED_CASES: Final = 3  # prepared in memory when it is in doubt whether the cache fits
SAMPLE_MARGIN: Final = 1.25  # other cases may shrink less than those
SHRINKS_AT_MOST: Final = 50  # crop and compression together; brains in air shrink 8-fold

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Filled:
    """What was done to a cache. Stays at the site."""

    entries: tuple[CacheEntry, ...]
    """In the order of the cases."""
    n_prepared: int
    n_damaged: int
    """How many of those were there, but damaged."""


@dataclass(frozen=True)
class _Job:
    """One case that is to be prepared, as it is sent to a process."""

    case: Case
    task: Task
    plan: Plan
    configuration: AnyConfiguration
    contents: tuple[Content, ...]
    """Of the case's files, as they were when its place was named."""
    folder: Path
    """Of the cache."""

    @cached_property
    def place(self) -> Path:
        """Name the entry by all that its content depends on: rules, files, and no name."""
        labels = [self.task.label_mapping, self.task.foreground_labels]
        digests = [content.sha256 for content in self.contents]
        labelled = self.case.label is not None
        named = canonical_json([SCHEMA, self.configuration, labels, labelled, digests])
        return self.folder / self.plan.hash[:16] / hashlib.sha256(named).hexdigest()[:32]


@dataclass(frozen=True)
class _Outcome:
    n_bytes: int
    defects: tuple[Defect, ...] = ()


@dataclass(frozen=True)
class _Room:
    """What may be written."""

    folder: Path
    available_bytes: int
    budget_bytes: int | None

    def exceeded_by(self, n_bytes: int) -> bool:
        """Return whether so much breaks the budget; a full disk makes itself felt."""
        return self.budget_bytes is not None and n_bytes > self.available_bytes


def prepare_dataset(
    cases: Sequence[Case],
    task: Task,
    plan: Plan,
    configuration: AnyConfiguration,
    folder: Path,
    *,
    progress: Progress | None = None,
    processes: int | None = None,
    budget_bytes: int | None = None,
) -> tuple[CacheEntry, ...]:
    """Return one entry per case, in the order of `cases`; see `fill_cache`."""
    return fill_cache(
        cases,
        task,
        plan,
        configuration,
        folder,
        progress=progress,
        processes=processes,
        budget_bytes=budget_bytes,
    ).entries


def prepare_case(
    case: Case, task: Task, plan: Plan, configuration: AnyConfiguration, folder: Path
) -> CacheEntry:
    """Return the case's entry, made now if the cache does not hold it; see `fill_cache`."""
    return prepare_dataset([case], task, plan, configuration, folder, processes=1)[0]


def fill_cache(
    cases: Sequence[Case],
    task: Task,
    plan: Plan,
    configuration: AnyConfiguration,
    folder: Path,
    *,
    progress: Progress | None = None,
    processes: int | None = None,
    budget_bytes: int | None = None,
    verify: bool = False,
) -> Filled:
    """Prepare every case that the cache does not hold yet, or holds damaged.

    Safe to stop and start again at any time, and to run twice at once. The entries' bytes do not
    depend on the number of processes.

    Args:
        cases: as found in the data folder.
        task: names channels and labels.
        plan: how to prepare; its hash names the folder.
        configuration: which of the plan's configurations.
        folder: of the cache; made when absent.
        progress: called with (cases done, all cases), at first with what is there already.
        processes: how many prepare, each one case at a time; by default as many as there are
            usable cores, and none besides this one when there is little to do.
        budget_bytes: how large the folder may become, whatever else it holds.
        verify: whether the checksums of what is there are compared as well, and not only sizes.

    Raises:
        DiskError: when disk or budget have no room, before anything is written, or fill up.
        DataError: with every case that cannot be read; all others are prepared.
        ConfigError: when a process was killed.
    """
    sweep(folder)
    jobs = _jobs(cases, task, plan, configuration, folder)
    there = {job.place: whole_entry(job.place, verify=verify) for job in jobs}
    missing = {job.place: job for job in jobs if there[job.place] is None}
    damaged = [place for place in missing if place.exists()]
    room_bytes = available_bytes(folder, budget_bytes) + sum(map(used_bytes, damaged))
    room = _Room(folder, room_bytes, budget_bytes)
    at_most = _require_space(list(missing.values()), room)
    for place in damaged:
        discard_entry(place, folder)
    try:
        n_processes = _n_processes(len(missing), at_most, processes)
        _prepare_all(list(missing.values()), len(cases), progress, n_processes, room)
    finally:
        sweep(folder)  # what a process was writing when it was stopped
    entries = tuple(there[job.place] or open_entry(job.place) for job in jobs)
    return Filled(entries, n_prepared=len(missing), n_damaged=len(damaged))


def _jobs(
    cases: Sequence[Case], task: Task, plan: Plan, configuration: AnyConfiguration, folder: Path
) -> list[_Job]:
    contents = contents_of([path for case in cases for path in _files(case)], folder)
    return [
        _Job(
            case=case,
            task=task,
            plan=plan,
            configuration=configuration,
            contents=tuple(contents[path] for path in _files(case)),
            folder=folder,
        )
        for case in cases
    ]


def _files(case: Case) -> tuple[Path, ...]:
    return case.images if case.label is None else (*case.images, case.label)


def _require_space(jobs: Sequence[_Job], room: _Room) -> int:
    """Stop before anything is written when it is not going to fit; return the most it can need.

    When the most that the headers allow does not fit, a few cases are prepared in memory first, to
    see how much smaller their empty borders and their zeros make them.
    """
    at_most = sum(map(_at_most_bytes, jobs))
    if at_most <= room.available_bytes or not jobs:
        return at_most
    if at_most > SHRINKS_AT_MOST * room.available_bytes:
        raise shortage(room.folder, f"at most {in_words(at_most)}", room.budget_bytes)
    readable = [job for job in jobs if _at_most_bytes(job)]
    sample = readable[:: -(-len(readable) // SAMPLED_CASES)]
    likely = at_most * min(1.0, SAMPLE_MARGIN * max(map(_shrinks_to, sample)))
    if likely > room.available_bytes:
        needs = f"about {in_words(likely)} (at most {in_words(at_most)})"
        raise shortage(room.folder, needs, room.budget_bytes)
    return at_most


def _at_most_bytes(job: _Job) -> int:
    """Return what a case takes at most; nothing where it cannot be read, which is told later."""
    try:
        return at_most_bytes(job.case, job.task, job.plan, job.configuration)
    except DataError:
        return 0


def _shrinks_to(job: _Job) -> float:
    """Return which fraction of the most that is possible a case takes."""
    meta, _ = _encoded(job)
    return sum(file.n_bytes for file in meta.files.values()) / _at_most_bytes(job)


def _n_processes(n_jobs: int, at_most: int, asked: int | None) -> int:
    """Return how many processes prepare; 1 stands for this one."""
    if multiprocessing.current_process().daemon:  # may not start any
        return 1
    if asked is None:
        asked = usable_cores() if at_most >= PARALLEL_FROM_BYTES else 1
    return min(asked, n_jobs)


def _prepare_all(
    jobs: Sequence[_Job], n_cases: int, progress: Progress | None, processes: int, room: _Room
) -> None:
    """Prepare cases; the defects of all of them are told together, at the end."""
    tell = progress or (lambda _done, _all: None)
    n_there, n_bytes, defects = n_cases - len(jobs), 0, list[Defect]()
    if n_there:
        tell(n_there, n_cases)
    with closing(_outcomes(jobs, processes)) as outcomes:  # whatever happens here, they end
        for n_done, outcome in enumerate(outcomes, start=n_there + 1):
            n_bytes += outcome.n_bytes
            defects.extend(outcome.defects)
            if room.exceeded_by(n_bytes) and n_done < n_cases:
                raise shortage(room.folder, "more than was expected", room.budget_bytes)
            tell(n_done, n_cases)
    if defects:
        raise DataError("The data cannot be used:", defects)


def _outcomes(jobs: Sequence[_Job], processes: int) -> Generator[_Outcome, None, None]:
    if processes > 1:
        yield from by_processes(_prepare_one, jobs, processes)
    else:
        yield from map(_prepare_one, jobs)


def _prepare_one(job: _Job) -> _Outcome:
    """Prepare one case, in whichever process; a defect of the case does not stop the others."""
    try:
        meta, files = _encoded(job)
    except DataError as error:
        if not error.defects:
            raise
        return _Outcome(0, tuple(replace(one, case=job.case.name) for one in error.defects))
    try:
        write_entry(job.place, job.folder, meta, files)
    except DiskError as error:
        raise DiskError(f"{error}; what was finished is kept") from None
    return _Outcome(sum(map(len, files.values())))


def _encoded(job: _Job) -> tuple[Meta, Files]:
    # More threads would round sums otherwise, and several processes would fight over the cores.
    # The limit is the whole process's: of two threads here, the first to leave would lift it for
    # the other, and the second would leave it behind; so they take turns.
    with TURN, THREADS.limit(limits=1, user_api="blas"):
        prepared = _read_and_prepare(job)
    for path, content in zip(_files(job.case), job.contents, strict=True):
        if facts_of(path) != content.facts:
            raise _defect(job.case, path, "a file that stays as it is", "one that just changed")
    by_slice = isinstance(job.configuration, Configuration2d)
    return arrays_of(prepared, job.task.foreground_labels, by_slice=by_slice)


def _read_and_prepare(job: _Job) -> Prepared:
    case = job.case
    scan = read_scan(case, len(job.task.channels))
    if case.label is None:
        return prepare(scan.image, scan.spacing_mm, None, job.plan, job.configuration)
    labels, grid = read_labels(case.label, job.task.label_mapping)
    if difference := same_grid(scan.grid, grid):
        raise _defect(case, case.label, "the grid of the image", difference)
    return prepare(scan.image, scan.spacing_mm, labels, job.plan, job.configuration)


def _defect(case: Case, path: Path, expected: str, found: str) -> DataError:
    return DataError("The data cannot be used:", [Defect(case.name, str(path), expected, found)])
