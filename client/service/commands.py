"""The commands of a site: check, start, stop, log, proposals and service."""

import json
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.codec import encode
from common.console import progress
from common.errors import ConfigError

if TYPE_CHECKING:
    from client.egress.entry import Entry

LINES, FOLLOW_S = 50, 0.5
app = typer.Typer(name="site", help="Run a hospital's side of a federation.", no_args_is_help=True)
Kit = Annotated[Path, typer.Argument(help="Folder that the coordinator sent.", show_default=False)]

ProposalHash = Annotated[
    str, typer.Argument(help="Hash of the proposal, or its beginning.", show_default=False)
]


@app.command()
def check(
    kit: Kit,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    data: Annotated[bool, typer.Option(help="Also open every file of every case.")] = True,
) -> None:
    """Check everything that a site needs, before anything starts; exit 2 if something failed."""
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


@app.command()
def start(
    kit: Kit,
    full_check: Annotated[
        bool, typer.Option("--full-check", help="First open every file of every case.")
    ] = False,
    longest_wait_s: Annotated[
        float, typer.Option(min=1, help="Longest wait between two attempts, in seconds.")
    ] = 300.0,
) -> None:
    """Run the site until it is stopped; connects again for ever."""
    from client.service.check import demand_startable
    from client.service.supervise import Supervisor
    from client.service.waits import Waits

    own, site = demand_startable(kit, typer.echo, data=full_check)
    supervisor = Supervisor(own, kit, site, Waits(longest_wait_s), typer.echo)
    raise typer.Exit(supervisor.run())


@app.command()
def stop(kit: Kit) -> None:
    """End a running site and wait until it has ended."""
    from client.service.files import service_files
    from client.service.running import stop as end_and_wait
    from client.site import load_site
    from common.kit import SITE_FILE

    ran = end_and_wait(service_files(load_site(kit / SITE_FILE)))
    typer.echo("the site has stopped" if ran else "the site does not run")


@app.command()
def log(
    kit: Kit,
    egress: Annotated[
        bool, typer.Option("--egress", help="What left the building, from the ledger.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With the details, which may name cases.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check that no line of the ledger is missing.")
    ] = False,
    lines: Annotated[int, typer.Option(min=0, help="How many, from the end.")] = LINES,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what the site did, or what left the building."""
    from client.service.service_log import Follower, in_words, last_lines
    from client.site import load_site
    from common.kit import SITE_FILE

    site = load_site(kit / SITE_FILE)
    if egress or verify:
        _show_ledger(site.egress_ledger, lines, full=full, verify=verify)
        return
    path = site.state_folder / "site.log"
    follower = Follower(path)
    for line in last_lines(path, lines, full=full):
        typer.echo(line)
    while follow:
        for line in follower.new_lines():
            if words := (line if full else in_words(line)):
                typer.echo(words)
        time.sleep(FOLLOW_S)


def _show_ledger(path: Path, lines: int, *, full: bool, verify: bool) -> None:
    from client.egress.reading import read
    from client.egress.reading import verify as wrong_with
    from client.egress.words import words

    if not path.exists():
        typer.echo("nothing has left the building yet")
        return
    shown: deque[Entry] = deque(maxlen=lines)
    n_entries, last = 0, ""
    for entry in read(path):
        shown.append(entry)
        n_entries, last = entry.n, entry.hash or ""
    for entry in shown:
        typer.echo(json.dumps(encode(entry), indent=1) if full else words(entry))
    if verify:
        if wrong := wrong_with(path):
            raise ConfigError("\n".join(f"{path}: {line}" for line in wrong))
        typer.echo(f"{path}: {n_entries} entries, none changed or missing; last hash {last}")


@app.command()
def proposals(kit: Kit) -> None:
    """List what the coordinator asked this site to take part in, and the answers."""
    from client.proposal_words import describe
    from client.proposals import proposals as kept
    from client.site import load_site
    from common.kit import SITE_FILE

    site = load_site(kit / SITE_FILE)
    found = kept(site)
    for proposal in found:
        typer.echo(f"{proposal.short}  {proposal.answer}")
        for line in describe(site, proposal):
            typer.echo(f"    {line}")
    if not found:
        typer.echo("nothing was proposed; only a policy with approval = 'person' keeps proposals")


@app.command()
def approve(kit: Kit, proposal: ProposalHash) -> None:
    """Approve a proposal, for good and for exactly this task, configuration and plan."""
    from client.proposals import approve as say_yes
    from client.site import load_site
    from common.kit import SITE_FILE

    typer.echo(f"approved: {say_yes(load_site(kit / SITE_FILE), proposal).short}")


@app.command()
def refuse(kit: Kit, proposal: ProposalHash) -> None:
    """Refuse a proposal, also one that was approved before."""
    from client.proposals import refuse as say_no
    from client.site import load_site
    from common.kit import SITE_FILE

    typer.echo(f"refused: {say_no(load_site(kit / SITE_FILE), proposal).short}")


@app.command()
def service(kit: Kit) -> None:
    """Print a systemd unit that runs the site from the machine's start on."""
    from client.service.units import unit
    from common.kit import read_site_kit

    typer.echo(unit(read_site_kit(kit).site, kit), nl=False)
