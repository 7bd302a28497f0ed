"""The command `consilium view`."""

from pathlib import Path
from typing import Annotated

import typer

from common.console import progress, say

Data = Annotated[Path, typer.Argument(help="Folder with the cases.", show_default=False)]


def view(
    data: Data,
    prediction: Annotated[
        Path | None,
        typer.Option("--prediction", help="Folder of predictions, as consilium predict writes it."),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option("--scores", help="A scores.csv; without it the cases are scored first."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Built-in task or TOML file; otherwise dataset.json decides, else brats-2021.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="127.0.0.1 or ::1.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for a free one.")] = 0,
) -> None:
    """Look at cases in a browser of this machine, worst first; shows patients, nothing leaves."""
    from client.dataset.guess import task_of
    from client.viewer.listing import list_cases, refuse_coordinator
    from client.viewer.serve import refuse_other_hosts, serve

    refuse_other_hosts(host)
    refuse_coordinator(data)
    with progress("cases") as tell:
        listing = list_cases(data, task_of(data, task), prediction, scores, tell)
    for warning in listing.warnings:
        say(f"warning: {warning}")
    say(f"{len(listing.cases)} cases; only a browser on this machine that has the whole address")
    say("can see them; Ctrl-C ends")
    serve(listing, host, port, typer.echo)
