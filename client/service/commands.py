"""The commands of a site: check, start, stop and log."""

import json
from pathlib import Path
from typing import Annotated

import typer

from common.codec import encode
from common.console import progress

app = typer.Typer(name="site", help="Run a hospital's side of a federation.", no_args_is_help=True)
Kit = Annotated[Path, typer.Argument(help="Folder that the coordinator sent.", show_default=False)]


@app.command()
def check(
    kit: Kit,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    data: Annotated[bool, typer.Option(help="Also open every file of every case.")] = True,
) -> None:
    """Check everything that a site needs, before anything starts; changes nothing."""
    from client.service.check import check_kit
    from client.service.findings import Finding, any_failed

    findings: list[Finding] = []
    with progress("inspect") as tell:
        for finding in check_kit(kit, data=data, progress=tell):
            findings.append(finding)
            if not as_json:
                typer.echo(str(finding))
    if as_json:
        typer.echo(json.dumps(encode(findings), indent=1))
    if any_failed(findings):
        raise typer.Exit(2)
