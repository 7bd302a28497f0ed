"""The researcher's commands: demo and simulate."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import progress, say
from common.errors import ConfigError, FederationError

if TYPE_CHECKING:
    from server.events import Event
    from server.run_folder import RunFolder

Out = Annotated[
    Path | None,
    typer.Option("--out", help="Run directory; runs/<name>-<time> if absent.", show_default=False),
]


def demo(out: Out = None) -> None:
    """Run a whole federation on synthetic brains: under 5 minutes on 2 cores."""
    from simulation.demo_study import demo_study
    from simulation.phantoms import write_study

    folder = _run_folder(out, "demo", resume=False)
    data = folder.path / "data"
    with progress("draw phantoms") as tell:
        write_study(demo_study(), data, tell)
    config = data / "demo.toml"
    with resources.as_file(resources.files("simulation") / "demo.toml") as packaged:
        shutil.copyfile(packaged, config)
    _simulate(config, data, folder)


def simulate(
    config: Annotated[Path, typer.Argument(help="Configuration of the run.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with the data set.", show_default=False)
    ] = None,
    out: Out = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run in --out stopped.")
    ] = False,
    fold: Annotated[
        int | None,
        typer.Option("--fold", min=0, help="Fold to hold out, if the configuration has folds."),
    ] = None,
    without: Annotated[
        list[str],
        typer.Option("--without", help="Training site that leaves a resumed run for ever."),
    ] = [],  # noqa: B006 - typer wants a list, nobody changes it
) -> None:
    """Run a federation on one machine, partitioned from one data set."""
    if resume and out is None:
        raise ConfigError("--resume: expected --out with the run directory to resume")
    folder = _run_folder(out, config.stem, resume=resume)
    _simulate(config, data, folder, fold, tuple(without))


def _simulate(
    config: Path,
    data: Path | None,
    folder: "RunFolder",
    fold: int | None = None,
    without: tuple[str, ...] = (),
) -> None:
    from server.event_log import EventLog
    from server.reporting.report import write_report
    from simulation.simulate import load_study, simulate

    study = load_study(config, data, fold)
    log = EventLog(folder.events, _watcher(study.config.federation.rounds))
    try:
        with progress("inspect") as tell:
            simulate(study, folder, log, tell, without)
    except FederationError as error:
        logs = folder.path / "sites" / "<site>" / "state" / "site.log"
        raise FederationError(f"{error}\nthe sites' own logs: {logs}") from error
    typer.echo(f"report: {write_report(folder.path)}")


def _run_folder(out: Path | None, name: str, *, resume: bool) -> "RunFolder":
    from server.run_folder import RunFolder

    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = RunFolder(out or Path("runs") / f"{name}-{now}")
    folder.check_name()
    if resume and not folder.config.exists():
        raise ConfigError(f"{folder.path}: expected a run to resume, found none")
    if not resume and folder.events.exists():
        raise ConfigError(f"{folder.path}: holds a run already; use --resume or another --out")
    return folder


def _watcher(n_rounds: int) -> Callable[["Event"], None]:
    from server.event_lines import line_of

    def watch(event: "Event") -> None:
        if line := line_of(event, n_rounds):
            say(line)

    return watch


COMMANDS = (demo, simulate)
