"""Exports a run's events, once or for as long as it runs."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from common.errors import ConfigError
from server.events import FloorMeasured, RunFinished
from server.exporting.csv_files import csv_content
from server.exporting.following import Source, batches
from server.exporting.points import Point, RoundPoints
from server.exporting.sinks import Batch, Sink, held_for
from server.exporting.summary import floor_point, summary_points
from server.exporting.table_files import TableFiles
from server.log_lines import Timed
from server.run_folder import RunFolder


@dataclass(frozen=True)
class Targets:
    """Where a run goes; None is not wanted."""

    csv: Path | None = None
    parquet: Path | None = None
    tensorboard: Path | None = None
    mlflow: str | None = None
    """Address of a store or server."""


def export(run_dir: Path, targets: Targets, *, follow: bool) -> int:
    """Write a run's events to where they are wanted, each once, however often this is called.

    Args:
        run_dir: the run directory.
        targets: at least one.
        follow: goes on until the run is finished.

    Returns:
        The number of events that the log holds.

    Raises:
        ConfigError: when nothing is wanted, a package is absent, no run is there, or a target
            cannot be written.
    """
    _check(targets)
    run, points, n_events = RunFolder(run_dir.resolve()), RoundPoints(), 0
    with ExitStack() as stack:
        sinks: list[Sink] = []
        for events in batches(run.events, follow=follow):
            if not sinks:
                source = Source(run=run.name, started=events[0].time)
                sinks = list(_opened(targets, run, source, stack))
            batch = Batch(events, [p for timed in events for p in _points(run, points, timed)])
            for sink in sinks:
                sink.take(batch)
            n_events += len(events)
    if not n_events:
        raise ConfigError(f"{run.events}: expected events, found none")
    return n_events


def _points(run: RunFolder, points: RoundPoints, timed: Timed) -> list[Point]:
    """Return the points that follow from an event and, at the end of a run, from its files."""
    found, (time, event) = points.points_of(timed), timed
    if isinstance(event, RunFinished):
        found += summary_points(run, event, time, points.last_round)
    if isinstance(event, FloorMeasured):
        found.append(floor_point(event, time))
    return found


def _opened(targets: Targets, run: RunFolder, source: Source, stack: ExitStack) -> Iterator[Sink]:
    """Yield the sinks, held and closed by the stack."""
    folders = (targets.csv, targets.parquet, targets.tensorboard)
    for folder in dict.fromkeys(folder.resolve() for folder in folders if folder):
        stack.enter_context(held_for(folder, source))
    if targets.csv:
        yield TableFiles(targets.csv, "csv", csv_content, run)
    if targets.parquet:
        from server.exporting.parquet_files import parquet_content

        yield TableFiles(targets.parquet, "parquet", parquet_content, run)
    if targets.tensorboard:
        from server.exporting.tensorboard_files import TensorBoardFiles

        yield stack.enter_context(closing(TensorBoardFiles(targets.tensorboard, run, source)))
    if targets.mlflow:
        from server.exporting.mlflow_store import MlflowStore

        yield stack.enter_context(closing(MlflowStore(targets.mlflow, run, source)))


def _check(targets: Targets) -> None:
    """Demand a target, and the packages for all of them."""
    packages = {
        "parquet": ("pyarrow", targets.parquet),
        "tensorboard": ("tensorboard", targets.tensorboard),
        "mlflow": ("mlflow", targets.mlflow),
    }
    absent = [
        f"--{extra}: expected the package {package}, found none; pip install 'consilium[{extra}]'"
        for extra, (package, target) in packages.items()
        if target and not _is_installed(package)
    ]
    if absent:
        raise ConfigError("\n".join(absent))
    if not (targets.csv or any(target for _, target in packages.values())):
        raise ConfigError("expected at least one of --csv, --parquet, --tensorboard and --mlflow")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # somebody has hidden it
        return False
