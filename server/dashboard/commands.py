"""`consilium dashboard`: the page that a study lead leaves open."""

from pathlib import Path
from typing import Annotated

import typer

from common.console import say
from common.errors import ConfigError

PORT = 8470  # none of the well-known ones, and beside Flower's 9090 to 9093


def dashboard(
    runs_dir: Annotated[
        Path, typer.Argument(help="A folder of runs, or one run.", show_default=False)
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = PORT,
    host: Annotated[
        str, typer.Option(help="Address to serve; beyond loopback only with a token and TLS.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that a browser is asked for.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="Of this server, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the certificate, PEM.")] = None,
    alarms: Annotated[
        Path | None, typer.Option(help="TOML with [limits] of alarms and a [webhook].")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="Address told of alarms: https, or http to this machine.")
    ] = None,
    webhook_state: Annotated[
        Path | None, typer.Option(help="File that keeps what the webhook was told.")
    ] = None,
) -> None:
    """Serve a live, read-only page of the runs, until Ctrl-C."""
    if not runs_dir.is_dir():
        raise ConfigError(f"{runs_dir}: expected a folder of runs, found none")
    from server.dashboard.access import access_for

    access = access_for(host, port, token_file=token_file, certificate=certificate, key=key)
    from server.dashboard.serve import serve  # takes seconds: what is refused is refused before
    from server.dashboard.start import reading_of

    if webhook_state is not None and webhook is None:
        raise ConfigError("--webhook-state: expected with --webhook, found without")
    reading = reading_of(runs_dir, settings=alarms, webhook=webhook, webhook_state=webhook_state)
    serve(reading, access, started=lambda url: say(f"dashboard: {url} (Ctrl-C ends it)"))
