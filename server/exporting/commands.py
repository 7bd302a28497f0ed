"""`consilium events`: a run's events for other programs."""

from pathlib import Path
from typing import Annotated

import typer


def events(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
    csv: Annotated[
        Path | None, typer.Option(help="Folder for a CSV file per kind of event, and of scores.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Folder for the same as parquet.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard.")] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="MLflow: sqlite:///FILE.db or http://HOST:PORT."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the run is finished, or Ctrl-C.")
    ] = False,
) -> None:
    """Export a run's events; given again, nothing is written twice."""
    from server.exporting.export import Targets, export

    targets = Targets(csv=csv, parquet=parquet, tensorboard=tensorboard, mlflow=mlflow)
    typer.echo(f"{run_dir}: {export(run_dir, targets, follow=follow)} events exported")


COMMANDS = (events,)
