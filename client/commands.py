"""The hospital's commands: inspect, fingerprint, preprocess, predict, score."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from common.codec import encode
from common.console import progress, say
from common.errors import ConfigError, DataError
from common.release import DEFAULT_MIN_CASES, SMALLEST_BIN, released

Data = Annotated[Path, typer.Argument(help="Folder with the cases.", show_default=False)]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Built-in task or TOML file; otherwise dataset.json decides, else brats-2021.",
        show_default=False,
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="Where to write.")]


def inspect(
    data: Data,
    task: TaskOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Find the cases of a folder and list every defect of every case; changes nothing."""
    from client.guess import task_of
    from client.inspection import inspect_folder

    chosen = task_of(data, task)
    with progress("inspect") as tell:
        found = inspect_folder(data, chosen, progress=tell)
    if as_json:
        typer.echo(json.dumps(encode(found), indent=1))
    if found.defects:
        summary = f"{data}: defects: {len(found.defects)}, in a data set of {found.n_cases} cases"
        raise DataError(summary, () if as_json else found.defects)
    if not as_json:
        typer.echo(f"{data}: {found.n_cases} cases of task {chosen.name}, no defects")


def fingerprint(
    data: Data,
    output: Output,
    task: TaskOption = None,
    release: Annotated[
        Literal["exact", "coarse"],
        typer.Option(help="Every count as it is, or bins of several cases."),
    ] = "exact",
    min_cases: Annotated[
        int, typer.Option(min=SMALLEST_BIN, help="Smallest bin of a coarse release.")
    ] = DEFAULT_MIN_CASES,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say field by field what the file tells, and why.")
    ] = False,
) -> None:
    """Measure what planning needs: mergeable counts, nothing of a single case."""
    from client.explain import explain as in_words
    from client.guess import task_of
    from client.inspection import check
    from client.layouts import describe
    from client.measure import measure
    from common.codec import write_json

    chosen = task_of(data, task)
    description = describe(data, chosen)
    check(description, chosen)
    with progress("fingerprint") as tell:
        measured = measure(description, chosen, progress=tell)
    found = released(measured, release, min_cases)
    write_json(output, found)
    typer.echo(f"{output}: fingerprint of {found.n_cases} cases")
    if explain:
        typer.echo("\n" + in_words(measured, found, release, min_cases))


def preprocess(
    data: Data,
    plan: Annotated[Path, typer.Option("--plan", help="A plan.json.")],
    output: Output,
    task: TaskOption = None,
) -> None:
    """Crop, resample and normalise every case into a cache; can be stopped and started again."""
    from client.cache import prepare_dataset
    from client.guess import task_of
    from client.inspection import check
    from client.layouts import describe
    from common.codec import read_json
    from common.plan import Plan, all_three_d

    chosen, made = task_of(data, task), read_json(Plan, plan)
    if chosen.channels != made.channels:
        raise ConfigError(
            f"{plan}: expected a plan for the channels {', '.join(chosen.channels)}, "
            f"found {', '.join(made.channels)}"
        )
    found = describe(data, chosen)
    check(found, chosen)
    cases = found.cases
    with progress("preprocess") as tell:
        for configuration in all_three_d(made):
            prepare_dataset(cases, chosen, made, configuration, output, progress=tell)
    typer.echo(f"{output}: {len(cases)} cases prepared for plan {made.hash[:16]}")


def predict(
    model: Annotated[Path, typer.Option("--model", help="A run directory.")],
    data: Annotated[Path, typer.Option("--input", help="Folder with the images.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the predictions.")],
    method: Annotated[
        str | None, typer.Option("--method", help="Whose model; otherwise the best-ranked one.")
    ] = None,
) -> None:
    """Segment every case; writes NIfTI in each image's own grid and orientation."""
    from client.export import load_trained
    from client.segment import segment_folder

    trained = load_trained(model, method)
    with progress(f"predict with {trained.method}") as tell:
        note = segment_folder(trained, data, output, tell)
    say(note)
    typer.echo(f"{output}: predictions of {trained.method}")


def score(
    reference: Annotated[Path, typer.Option("--reference", help="Folder of true labels.")],
    prediction: Annotated[Path, typer.Option("--prediction", help="Folder of predicted labels.")],
    output: Output,
    task: Annotated[
        str, typer.Option("--task", help="brats, another built-in task, or a TOML file.")
    ] = "brats",
    hd95: Annotated[
        Literal["pooled", "max"],
        typer.Option(help="Percentile of the pooled distances, or maximum of both directions."),
    ] = "pooled",
) -> None:
    """Score predictions with the BraTS metrics: one row per case and region."""
    from client.guess import task_of
    from client.score import score_folders
    from common.metrics import BRATS_RULES
    from common.scores import definition_of, write_scores

    chosen = task_of(reference, task)
    with progress("score") as tell:
        table = score_folders(reference, prediction, chosen, hd95=hd95, progress=tell)
    write_scores(output, table, definition_of(chosen.name, hd95, BRATS_RULES))
    missing = sum(BRATS_RULES.missing_case in rows.values() for rows in table.values())
    lacking = f", {missing} of them without a prediction (Dice 0)" if missing else ""
    typer.echo(f"{output}: {len(table)} cases{lacking}; HD95 {hd95}, in mm")


COMMANDS = (inspect, fingerprint, preprocess, predict, score)
