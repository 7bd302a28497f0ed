"""The front door: hands each subcommand to its room and turns errors into one clear line."""

import sys

import typer

import client.commands
import client.service.commands
import server.commands
import server.coordinator.commands
import simulation.commands
from common.errors import ConsiliumError

INTERRUPTED = 130  # exit code of a program that Ctrl-C ended, by the custom of shells

app = typer.Typer(
    name="consilium",
    help="Federated training of brain-tumour segmentation across hospitals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for room in (simulation.commands, client.commands, server.commands):
    for command in room.COMMANDS:
        app.command()(command)
app.add_typer(client.service.commands.app)
app.add_typer(server.coordinator.commands.app)


def main() -> None:
    """Run the command line; exit 0, 2 for a mistake of the user's, 1 for a failure."""
    try:
        app()
    except ConsiliumError as error:
        for line in str(error).splitlines():
            typer.echo(f"consilium: {line}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a missing right: the machine's user can mend it
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"consilium: {where}{error.strerror or error}", err=True)
        sys.exit(2)
    except SystemExit as stopped:
        if stopped.code == INTERRUPTED:  # typer has turned Ctrl-C into this, without a word
            typer.echo("consilium: stopped; what was finished is kept", err=True)
        raise


if __name__ == "__main__":
    main()
