"""The experiment: join, plan, train with every method, test, rank. Start reading here."""

import platform
import resource
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from common.codec import encode, read_toml, write_toml
from common.config import RunConfig
from common.errors import ConfigError
from common.task import Task
from server.event_log import EventLog
from server.events import RunFinished, RunStarted
from server.experiment import Experiment
from server.personalised import compare_personalised
from server.planning.agreeing import agree
from server.planning.cohort import NO_CHANGES, Changes
from server.planning.joining import join
from server.postprocessing import choose_postprocessing
from server.ranking import rank
from server.rounds import train_method
from server.run_folder import RunFolder
from server.sites import Sites
from server.start import keep_start
from server.testing import measure_floor, score_method


def run(
    config: RunConfig,
    task: Task,
    sites: Sites,
    folder: RunFolder,
    log: EventLog,
    *,
    device: str,
    changes: Changes = NO_CHANGES,
) -> None:
    """Run a whole federation, or resume one where it stopped.

    Every step that is already on disk is not repeated, and a round that was cut short starts
    again from its checkpoint: the result is that of an undisturbed run.

    Args:
        config: what the study lead decided.
        task: what is segmented.
        sites: how the sites are reached.
        folder: where everything is written.
        log: of this run's events.
        device: description of where the sites compute, for the report.
        changes: who comes to a resumed run, and who leaves it.

    Raises:
        FederationError: when the federation cannot go on.
        ConfigError: when the folder holds another run, or another process is running it.
    """
    with folder.held():
        began = time.monotonic()
        started = _started(config, task, folder, device)
        _claim(folder, config, task)
        keep_start(config.model.start, folder)
        log.append(started)

        cohort = join(sites, config, task, folder, log, changes)
        plan = agree(sites, cohort, config, task, folder, log)
        experiment = Experiment(config, task, plan, cohort, folder, sites, log)

        trained = [train_method(experiment, method) for method in config.federation.methods]
        for strategy, state in trained:
            compare_personalised(experiment, strategy, state)
        models = {
            strategy.name: score_method(
                experiment, strategy, state, choose_postprocessing(experiment, strategy, state)
            )
            for strategy, state in trained
        }
        measure_floor(experiment)
        rank(experiment, models)

        log.append(
            RunFinished(seconds=time.monotonic() - began, peak_memory_bytes=_peak_memory_bytes())
        )


def _claim(folder: RunFolder, config: RunConfig, task: Task) -> None:
    """Write configuration and task, or check that they are those of the run that is resumed."""
    if folder.config.exists():
        _require_same(encode(read_toml(RunConfig, folder.config)), encode(config), folder)
    write_toml(folder.task, task)
    write_toml(folder.config, config)


def _require_same(kept: dict[str, Any], given: dict[str, Any], folder: RunFolder) -> None:
    """Demand equal configurations; where the data lie may change, their content is checked."""
    old, new = dict(_flat(kept)), dict(_flat(given))
    keys = [key for key in {**old, **new} if not key.startswith("simulation.data")]
    differing = [
        f"{folder.config}: {key}: expected {old.get(key)!r} as this run began, "
        f"found {new.get(key)!r}"
        for key in keys
        if old.get(key) != new.get(key)
    ]
    if differing:
        raise ConfigError("\n".join(differing))


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _started(config: RunConfig, task: Task, folder: RunFolder, device: str) -> RunStarted:
    packages = ("consilium", "flwr", "torch", "numpy")
    return RunStarted(
        run=folder.name,
        task=task.name,
        methods=config.federation.methods,
        seed=config.federation.seed,
        resumed=folder.config.exists(),
        versions={"python": platform.python_version(), **{p: version(p) for p in packages}},
        device=device,
    )


def _peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB
