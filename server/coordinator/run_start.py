"""Making the folder of a new run: configuration and task, checked against the kit's sites."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from common.codec import encode, read_toml, write_toml
from common.config import RunConfig
from common.errors import ConfigError
from common.kit import CoordinatorKit
from common.task import Task, load_task
from server.run_folder import RunFolder


@dataclass(frozen=True)
class RunRequest:
    """What a run is to be made of."""

    config: RunConfig
    """With whole paths."""
    task: Task


def read_request(path: Path) -> RunRequest:
    """Read a configuration; its relative paths refer to its own folder.

    Raises:
        ConfigError: for a malformed configuration or an unknown task.
    """
    config, base = read_toml(RunConfig, path), path.resolve().parent
    task = str(base / config.task) if config.task.endswith(".toml") else config.task
    edited = config.planning.edited_plan
    planning = replace(config.planning, edited_plan=str(base / edited) if edited else None)
    model = config.model.with_runs(lambda _, run: str(base / run))
    resolved = replace(config, task=task, planning=planning, model=model, simulation=None)
    chosen = load_task(task)
    resolved.check_task(chosen)
    return RunRequest(resolved, chosen)


def make_run(
    request: RunRequest,
    kit: CoordinatorKit,
    path: Path,
    *,
    admit: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
) -> RunFolder:
    """Write what the coordinator starts a run from, or check that a folder holds that run.

    Args:
        request: what is to be run.
        kit: whose sites there are.
        path: the run folder.
        admit: sites that come to a run that is resumed.
        without: sites that leave it.

    Raises:
        ConfigError: with one line per defect, before anything is written.
    """
    folder = RunFolder(path)
    folder.check_name()
    defects = list(_defects(request.config, kit, admit, without))
    is_new = not folder.config.exists()
    if is_new and (admit or without):
        defects.append("--admit, --without: expected for a run that is resumed, found a new one")
    if not is_new and encode(read_toml(RunConfig, folder.config)) != encode(request.config):
        defects.append(f"{folder.path}: holds another run; expected an --out of its own")
    if defects:
        raise ConfigError("\n".join(defects))
    if is_new:
        write_toml(folder.task, request.task)
        write_toml(folder.config, request.config)
    return folder


def default_folder(kit: Path, config: Path, now: datetime) -> Path:
    """Return where a run lies if nobody says so."""
    return kit / "runs" / f"{config.stem}-{now.astimezone(UTC).strftime('%Y%m%d-%H%M%S')}"


def _defects(
    config: RunConfig, kit: CoordinatorKit, admit: Iterable[str], without: Iterable[str]
) -> Iterator[str]:
    federation = config.federation
    there = {name for name, entry in kit.sites.items() if entry.revoked is None}
    for key, names in (
        ("federation.held_out", federation.held_out),
        ("federation.root_site", filter(None, [federation.root_site])),
        ("--admit", admit),
    ):
        yield from (_unknown(key, name, kit) for name in names if name not in there)
    yield from (_unknown("--without", name, kit) for name in without if name not in kit.sites)
    training = there - set(federation.held_out) - set(without)
    if federation.root_site in federation.held_out:
        yield f"federation.root_site: expected a training site, {federation.root_site} is held out"
    if len(training) < federation.min_sites:
        yield (
            f"federation.min_sites: expected at most {len(training)}, the kit's training sites "
            f"({', '.join(sorted(training)) or 'none'}), found {federation.min_sites}"
        )


def _unknown(key: str, name: str, kit: CoordinatorKit) -> str:
    if name in kit.sites:
        return f"{key}: site {name!r} was revoked"
    near = difflib.get_close_matches(name, kit.sites, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(kit.sites)}"
    return f"{key}: {name!r} is no site of the kit; {hint}"
