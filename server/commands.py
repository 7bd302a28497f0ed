"""The coordinator's commands: plan, rank, report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.console import say
from common.errors import ConfigError
from common.plan import Rules
from common.scores import ScoreTable

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
    from common.edited_plan import advice
    from server.planning import planned_from

    planned = planned_from(fingerprints or (), summary, edited, memory_gb=memory_gb, rules=rules)
    made = planned.plan
    write_json(output, made)
    for name, configuration in made.configurations.items():
        patch = "x".join(map(str, configuration.patch_size))
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
        Literal["brats", "fets"], typer.Option(help="Average over cases, or over institutions.")
    ] = "brats",
    ties: Annotated[
        Literal["min", "average"], typer.Option(help="Rank of methods with equal values.")
    ] = "min",
) -> None:
    """Rank methods: rank first, per case and metric, then aggregate; with permutation tests."""
    from common.codec import write_json
    from common.ranking import rank_methods
    from common.scores import require_one_definition

    files = {method: _score_files(path) for method, path in _named(scores).items()}
    every = {str(path): path for by_site in files.values() for path in by_site.values()}
    require_one_definition(every)
    ranking = rank_methods(_read(files), scheme=scheme, ties=ties)
    write_json(output, ranking)
    for method in sorted(ranking.methods, key=lambda name: ranking.mean_rank[name]):
        place, mean_rank = ranking.final_rank[method], ranking.mean_rank[method]
        typer.echo(f"{place}. {method}: mean rank {mean_rank:.4f}")


def report(
    run_dir: Annotated[Path, typer.Argument(help="A run directory.", show_default=False)],
) -> None:
    """Write report.html and report.md with tables and plots."""
    from server.report import write_report

    typer.echo(write_report(run_dir))


def _named(paths: list[Path]) -> dict[str, Path]:
    """Name each method after its file, or after its folder where file names repeat."""
    by_stem = {path.stem: path for path in paths}
    named = by_stem if len(by_stem) == len(paths) else {path.parent.name: path for path in paths}
    if len(named) != len(paths):
        raise ConfigError(
            "rank: expected one file per method with different names, "
            f"found {', '.join(map(str, paths))}"
        )
    return named


def _score_files(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {"": path}
    files = {file.stem: file for file in sorted(path.glob("*.csv"))}
    if not files:
        raise ConfigError(f"{path}: expected score files (.csv), found none")
    return files


def _read(files: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, ScoreTable]]:
    from common.scores import read_scores

    return {
        method: {site: read_scores(path) for site, path in by_site.items()}
        for method, by_site in files.items()
    }


COMMANDS = (plan, rank, report)
