"""The coordinator's commands: plan, rank, report, dashboard, provision, events."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from common.axes import times
from common.console import say
from common.errors import ConfigError
from common.planning.plan import Rules
from server.dashboard.commands import dashboard
from server.exporting.commands import events
from server.provisioning.commands import provision

Output = Annotated[Path, typer.Option("-o", "--output", help="Where to write.")]


def plan(
    output: Output,
    fingerprints: Annotated[
        list[Path] | None, typer.Argument(help="Fingerprints, one per site.", show_default=False)
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", help="A summary.json instead of fingerprints.")
    ] = None,
    memory_gb: Annotated[
        float, typer.Option(min=0.1, help="Accelerator memory of the smallest site.")
    ] = 8.0,
    rules: Annotated[Rules, typer.Option(help="Which published planner.")] = "paper",
    edited: Annotated[
        Path | None,
        typer.Option("--edited", help="A plan.json changed by hand: checked, marked, sealed."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say why, decision by decision, and draw the networks."),
    ] = False,
) -> None:
    """Merge fingerprints and plan; same input, same bytes, same hash on every machine."""
    from common.codec import write_json
    from common.planning.edited_plan import advice
    from server.planning.plan_files import planned_from

    planned = planned_from(fingerprints or (), summary, edited, memory_gb=memory_gb, rules=rules)
    made = planned.plan
    write_json(output, made)
    for name, configuration in made.configurations.items():
        patch = times(configuration.patch_size)
        typer.echo(f"{output}: {name}: patch {patch}, batch {configuration.batch_size}")
    if explain:
        typer.echo("\n" + planned.explained())
    else:
        for line in advice(made):
            say(f"{output}: {line}")


def rank(
    scores: Annotated[
        list[Path],
        typer.Argument(help="One file per method, or one folder with a file per institution."),
    ],
    output: Output,
    scheme: Annotated[
        Literal["brats", "fets", "fets-task1", "kits"],
        typer.Option(
            help="Cases count the same, institutions do, convergence counts; kits: mean Dice."
        ),
    ] = "brats",
    tie_breaker: Annotated[
        str | None, typer.Option(help="Region that decides between equal methods; for kits.")
    ] = None,
    ties: Annotated[
        Literal["min", "average"] | None,
        typer.Option(help="Rank of equal values; what is customary with the scheme if absent."),
    ] = None,
    test: Annotated[
        Literal["exact", "monte-carlo"], typer.Option(help="The permutation test.")
    ] = "exact",
    draws: Annotated[int, typer.Option(min=1, help="Of the Monte Carlo test.")] = 100_000,
    bootstrap: Annotated[
        int | None,
        typer.Option(min=0, help="Samples for intervals of ranks; 1000 if absent, 0 for none."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is drawn.")] = 0,
    lesion_wise: Annotated[
        bool, typer.Option("--lesion-wise", help="Rank lesion-wise Dice and HD95 instead.")
    ] = False,
    convergence: Annotated[
        Path | None,
        typer.Option(help="JSON with a score per method, higher is better; for fets-task1."),
    ] = None,
    sums: Annotated[
        bool, typer.Option("--sums", help="The files are rank sums of institutions (JSON).")
    ] = False,
    release: Annotated[
        str | None,
        typer.Option(help="Write the rank sums of this institution instead of a ranking."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a page (HTML).")] = None,
) -> None:
    """Rank methods: rank first, per case and metric, then aggregate; with permutation tests."""
    from common.codec import write_json
    from server.reporting.rank_files import RankOptions, ranked_files, released_sums
    from server.reporting.ranking_report import write_ranking_page

    if (scheme == "kits") != (tie_breaker is not None):
        raise ConfigError("--tie-breaker: expected with --scheme kits, and with it only")
    if scheme == "kits":
        _rank_by_composite(scores, output, str(tie_breaker), plain=not (sums or release or report))
        return
    options = RankOptions(
        scheme=scheme,
        ties=ties,
        convergence=convergence,
        n_draws=draws if test == "monte-carlo" else None,
        n_bootstrap=bootstrap,
        seed=seed,
        lesion_wise=lesion_wise,
    )
    if release is not None:
        write_json(output, released_sums(scores, release, options))
        return
    ranking, source = ranked_files(scores, options, sums=sums)
    write_json(output, ranking)
    if report is not None:
        write_ranking_page(report, ranking, source)
    for method in sorted(ranking.methods, key=lambda name: ranking.mean_rank[name]):
        place, mean_rank = ranking.final_rank[method], ranking.mean_rank[method]
        typer.echo(f"{place}. {method}: mean rank {mean_rank:.4f}")


def _rank_by_composite(scores: list[Path], output: Path, tie_breaker: str, *, plain: bool) -> None:
    from common.codec import write_json
    from server.reporting.rank_files import ranked_by_composite

    if not plain:
        raise ConfigError("--scheme kits: has neither rank sums nor a report; expected scores only")
    ranking = ranked_by_composite(scores, tie_breaker)
    write_json(output, ranking)
    for method in sorted(ranking.methods, key=lambda name: ranking.final_rank[name]):
        dice = ranking.composite_dice[method]
        typer.echo(f"{ranking.final_rank[method]}. {method}: mean composite Dice {dice:.4f}")


def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
) -> None:
    """Write report.html and report.md with tables and plots."""
    from server.reporting.report import write_report

    typer.echo(write_report(run_dir))


COMMANDS = (plan, rank, report, dashboard, provision, events)
