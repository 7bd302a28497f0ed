"""A data folder into a cache, from the command line: which configurations, and what was done."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from client.caching.prepare_cases import Filled, Progress, fill_cache
from client.caching.space import GIB, in_words
from client.dataset.inspection import check
from client.dataset.layouts import describe
from common.errors import ConfigError
from common.planning.plan import AnyConfiguration, Configuration, Plan
from common.task import Task


class Announce(Protocol):
    """Shows the progress of what is named, as `common.console.progress` does."""

    def __call__(self, what: str) -> AbstractContextManager[Progress]:
        """Return a context that yields a function to be told (done, all)."""
        ...


def prepare_folder(
    data: Path,
    task: Task,
    plan: Plan,
    names: Sequence[str],
    cache: Path,
    announce: Announce,
    *,
    processes: int | None,
    max_disk_gib: float | None,
    verify: bool,
) -> list[str]:
    """Prepare the cases of a folder for some of a plan's configurations; say what was done.

    Args:
        data: folder with the cases.
        task: names channels and labels.
        plan: how to prepare.
        names: of configurations; none stands for every one of three axes.
        cache: folder to fill.
        announce: shows the progress of each configuration.
        processes: how many prepare; None lets `client.caching.prepare_cases` decide.
        max_disk_gib: how large the cache may become.
        verify: whether checksums of what is there are compared.

    Returns:
        One line per configuration.

    Raises:
        ConfigError: when the plan is not made for the task, or lacks a configuration.
        DataError: with every defect of every case.
        DiskError: when the disk or the budget is too small.
    """
    if task.channels != plan.channels:
        raise ConfigError(
            f"plan {plan.hash[:16]}: expected one for the channels {', '.join(task.channels)}, "
            f"found {', '.join(plan.channels)}"
        )
    chosen = _chosen(plan, names)
    found = describe(data, task)
    with announce("inspect") as tell:
        check(found, task, tell)
    lines = []
    for name, configuration in chosen.items():
        with announce(f"preprocess {name}") as tell:
            filled = fill_cache(
                found.cases,
                task,
                plan,
                configuration,
                cache,
                progress=tell,
                processes=processes,
                budget_bytes=None if max_disk_gib is None else int(max_disk_gib * GIB),
                verify=verify,
            )
        lines.append(f"{cache}: {name}: {_in_words(filled)}")
    return lines


def _chosen(plan: Plan, names: Sequence[str]) -> Mapping[str, AnyConfiguration]:
    planned = {str(name): one for name, one in plan.configurations.items()}
    if unknown := [name for name in names if name not in planned]:
        raise ConfigError(
            f"--configuration {unknown[0]}: expected one of the plan's, {', '.join(planned)}"
        )
    three_axes = [name for name, one in planned.items() if isinstance(one, Configuration)]
    if not (wanted := [name for name in planned if name in (names or three_axes)]):
        raise ConfigError(
            f"plan {plan.hash[:16]}: expected a configuration of three axes, found only "
            f"{', '.join(planned)}; ask for it with --configuration"
        )
    return {name: planned[name] for name in wanted}


def _in_words(filled: Filled) -> str:
    n_cases, disk_bytes = len(filled.entries), sum(entry.disk_bytes for entry in filled.entries)
    there = n_cases - filled.n_prepared
    again = f" ({filled.n_damaged} of them again: damaged)" if filled.n_damaged else ""
    return (
        f"{n_cases} cases: {filled.n_prepared} prepared{again}, {there} already there; "
        f"{in_words(disk_bytes)}"
    )
