"""`consilium provision`: the study lead's command that makes kits."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def provision(
    federation: Annotated[
        Path, typer.Argument(help="What is to be: FEDERATION.toml.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the kits.")],
    revoke: Annotated[
        list[str] | None,
        typer.Option("--revoke", metavar="SITE", help="Refuse a site from now on; repeatable."),
    ] = None,
    rotate: Annotated[
        list[str] | None,
        typer.Option(
            "--rotate",
            metavar="SITE|coordinator|all",
            help="Make new keys; the old ones are refused from then on; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make certificates, keys, one start kit per site and one for the coordinator."""
    from common.codec import encode
    from common.console import say
    from server.provisioning.federation_file import read_federation
    from server.provisioning.provision import provision as make_kits
    from server.provisioning.wish import Wish
    from server.provisioning.words import lines_of

    wish = Wish(revoke=tuple(revoke or ()), rotate=tuple(rotate or ()))
    made = make_kits(read_federation(federation), output, wish, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(encode(made), indent=1))
    else:
        for line in lines_of(made):
            typer.echo(line)
    for remark in made.remarks:
        say(f"look at: {remark}")


COMMANDS = (provision,)
