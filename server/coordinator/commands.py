"""`consilium coordinator`: start, run, status, stop, service."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from common.console import say
from common.errors import ConfigError
from server.coordinator.kit_folder import find_kit

app = typer.Typer(
    name="coordinator", help="The coordinator's side of a federation.", no_args_is_help=True
)
Kit = Annotated[
    Path | None,
    typer.Option(
        "--kit", help="The coordinator's kit; else CONSILIUM_KIT, else the current folder."
    ),
]


@app.command()
def start(
    kit: Annotated[
        Path | None, typer.Argument(help="The coordinator's kit.", show_default=False)
    ] = None,
) -> None:
    """Serve, and keep everything going, until Ctrl-C; the same command goes on after a crash."""
    from server.coordinator.supervise import supervise

    supervise(find_kit(kit))


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="The run's TOML file.", show_default=False)],
    kit: Kit = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; one that exists is resumed.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="Site that leaves a resumed run for ever.")
    ] = None,
    admit: Annotated[list[str] | None, typer.Option(help="Site that comes to it.")] = None,
) -> None:
    """Start a run with the kit's sites, or resume one; the coordinator keeps it going."""
    from server.coordinator.run_start import default_folder, make_run, read_request
    from server.coordinator.supervise import running
    from server.coordinator.wanted_runs import WantedRun, want

    folder, now = find_kit(kit), datetime.now(UTC)
    coming, going = tuple(admit or ()), tuple(without or ())
    path = (out or default_folder(folder.path, config, now)).resolve()
    made = make_run(read_request(config), folder.read(), path, admit=coming, without=going)
    want(
        folder.runs,
        WantedRun(
            folder=str(made.path),
            added=now.isoformat(timespec="seconds"),
            admit=coming,
            without=going,
        ),
    )
    typer.echo(f"run folder: {made.path}")
    typer.echo(f"progress: consilium coordinator status --kit {folder.path}")
    if running(folder) is None:
        say(f"it begins with the coordinator: consilium coordinator start {folder.path}")


@app.command()
def status(
    kit: Kit = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tell of programs, sites, runs and refusals; exit code 1 if something does not run."""
    from common.codec import encode
    from server.coordinator.status import read_status
    from server.coordinator.status_words import status_lines

    found = read_status(find_kit(kit), datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps({"healthy": found.healthy, **encode(found)}, indent=1))
    else:
        typer.echo("\n".join(status_lines(found)))
    if not found.healthy:
        raise typer.Exit(1)


@app.command()
def stop(
    kit: Kit = None,
    run_name: Annotated[
        str | None, typer.Option("--run", help="Only this run; the coordinator stays.")
    ] = None,
) -> None:
    """End the coordinator, or one run."""
    from server.coordinator.stop import stop_coordinator, stop_run

    folder = find_kit(kit)
    if run_name is None:
        stop_coordinator(folder)
        typer.echo("the coordinator has ended; its runs go on with the next start")
    else:
        stop_run(folder, run_name)
        typer.echo(f"run {run_name} is not wanted any more; its folder stays")


@app.command()
def service(
    kit: Annotated[Path, typer.Argument(help="The coordinator's kit.", show_default=False)],
    what: Annotated[
        str, typer.Option("--for", help="systemd or container.", show_default=True)
    ] = "systemd",
) -> None:
    """Print a service file, filled in, so that the coordinator survives reboots."""
    from server.coordinator.services import container_file, systemd_unit

    texts = {"systemd": systemd_unit, "container": container_file}
    if what not in texts:
        raise ConfigError(f"--for: expected one of {', '.join(texts)}, found {what!r}")
    typer.echo(texts[what](find_kit(kit)), nl=False)
