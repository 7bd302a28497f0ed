"""The hospital's commands: inspect, fingerprint, preprocess, predict, score, view, privacy."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from client.privacy.commands import privacy
from client.viewer.commands import view
from common.codec import encode
from common.console import progress, say
from common.errors import DataError
from common.evaluation.empty_rules import RulesName
from common.evaluation.lesion_rules import LesionRulesName
from common.files import demand_writable
from common.planning.release import (
    DEFAULT_MIN_CASES,
    SMALLEST_BIN,
    ReleaseMode,
    refuse_alone,
    released,
)

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
    report: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page with pictures; it shows patients.", dir_okay=False),
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns Subject_ID and Patient_ID; else names tell."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases read at once; otherwise one per core.")
    ] = None,
) -> None:
    """Find the cases of a folder and list every defect of every case; changes nothing."""
    from client.dataset.guess import task_of
    from client.dataset.inspection import inspect_folder
    from client.dataset.patients import read_patients

    if report:
        demand_writable(report)
    chosen = task_of(data, task)
    of_case = read_patients(patients) if patients else None
    pictures: dict[str, dict[str, bytes]] | None = {} if report else None
    with progress("inspect") as tell:
        found = inspect_folder(
            data, chosen, progress=tell, workers=workers, patients=of_case, pictures=pictures
        )
    if report and pictures is not None:
        from client.dataset.inspection_page import write_page  # draws with matplotlib's colours

        write_page(report, found, pictures, chosen, data)
        say(f"{report}: {found.n_cases} cases with pictures; it shows patients and stays here")
    if as_json:
        typer.echo(json.dumps(encode(found), indent=1))
    elif not found.defects:
        typer.echo(f"{data}: {found.n_cases} cases of task {chosen.name}, no defects")
    if not as_json:
        for warning in found.warnings:
            say(f"warning: {warning}")
    if found.defects:
        summary = f"{data}: defects: {len(found.defects)}, in a data set of {found.n_cases} cases"
        raise DataError(summary, () if as_json else found.defects)


def fingerprint(
    data: Data,
    output: Output,
    task: TaskOption = None,
    release: Annotated[
        ReleaseMode,
        typer.Option(
            help="Every count, or bins of several cases; secure-sum is for federated runs and can "
            "only be explained here."
        ),
    ] = "exact",
    min_cases: Annotated[
        int, typer.Option(min=SMALLEST_BIN, help="Smallest bin of a coarse release.")
    ] = DEFAULT_MIN_CASES,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say field by field what the file tells, and why.")
    ] = False,
) -> None:
    """Measure what planning needs: mergeable counts, nothing of a single case."""
    from client.dataset.guess import task_of
    from client.dataset.inspection import check
    from client.dataset.layouts import describe
    from client.fingerprint.explain import explain as in_words
    from client.fingerprint.measure import measure
    from common.codec import write_json

    if release == "secure-sum" and not explain:
        refuse_alone()
    chosen = task_of(data, task)
    description = describe(data, chosen)
    with progress("inspect") as tell:
        check(description, chosen, tell)
    with progress("fingerprint") as tell:
        measured = measure(description, chosen, progress=tell)
    if release == "secure-sum":
        typer.echo(in_words(measured, measured, release, min_cases))
        return
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
    configuration: Annotated[
        list[str] | None,
        typer.Option(help="3d_fullres, 3d_lowres or 2d, more than once if need be; else all 3D."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="One case each at a time; else one per core.")
    ] = None,
    max_disk_gb: Annotated[
        float | None, typer.Option(min=0, help="How large the cache may become, in GiB.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the checksums of what is there already.")
    ] = False,
) -> None:
    """Crop, resample and normalise every case into a cache; can be stopped and started again."""
    from client.caching.prepare_folder import prepare_folder
    from client.dataset.guess import task_of
    from common.codec import read_json
    from common.planning.plan import Plan

    lines = prepare_folder(
        data,
        task_of(data, task),
        read_json(Plan, plan),
        configuration or (),
        output,
        progress,
        processes=processes,
        max_disk_gib=max_disk_gb,
        verify=verify,
    )
    typer.echo("\n".join(lines))


def predict(
    models: Annotated[
        list[Path],
        typer.Option("--model", help="A run directory; several are averaged, one task for all."),
    ],
    data: Annotated[Path, typer.Option("--input", help="Folder with the images.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the predictions.")],
    method: Annotated[
        str | None, typer.Option("--method", help="Whose model; otherwise the best-ranked one.")
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write a map of the entropy, 0 to 1.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write a map per region or label.")
    ] = False,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Skip the cases that are done already.")
    ] = False,
    mirroring: Annotated[
        bool | None,
        typer.Option(help="Average over mirrored images; otherwise as the run says."),
    ] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"] | None,
        typer.Option(help="Of the network; otherwise as the run says."),
    ] = None,
    postprocessing: Annotated[
        bool, typer.Option(help="Do to the labels what the run found to help, if anything.")
    ] = True,
    max_memory_gb: Annotated[
        float | None,
        typer.Option(
            min=0, help="For probabilities, before they go to disk; otherwise a quarter of all."
        ),
    ] = None,
) -> None:
    """Segment every case; writes NIfTI in each image's own grid and orientation."""
    from client.export import load_trained
    from client.prediction.segment import Wanted
    from client.prediction.segment_folder import Options, segment_folder

    trained = [load_trained(model, method) for model in models]
    options = Options(
        wanted=Wanted(uncertainty=uncertainty, probabilities=probabilities),
        go_on=go_on,
        max_memory_bytes=None if max_memory_gb is None else int(max_memory_gb * 1e9),
        mirroring=mirroring,
        precision=precision,
        postprocessing=postprocessing,
    )
    names = ", ".join(model.method for model in trained)
    with progress(f"predict with {names}") as tell:
        notes = segment_folder(trained, data, output, tell, options)
    for note in notes or ("every case is done already",):
        say(note)
    typer.echo(f"{output}: predictions of {names}")


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
    rules: Annotated[
        RulesName, typer.Option(help="What empty regions score, by the first year of the rules.")
    ] = "brats-2021",
    metrics: Annotated[
        str, typer.Option(help="By name, with commas; further ones: nsd, volume_difference.")
    ] = "dice,hd95,sensitivity,specificity",
    nsd_tolerance_mm: Annotated[
        float | None, typer.Option(min=0, help="How far apart surfaces may lie and agree, for nsd.")
    ] = None,
    lesion_wise: Annotated[
        bool, typer.Option("--lesion-wise", help="Also score lesion by lesion, as BraTS 2023 does.")
    ] = False,
    lesion_rules: Annotated[
        LesionRulesName, typer.Option(help="The challenge whose lesions these are.")
    ] = "glioma",
    missing_as_zero: Annotated[
        bool,
        typer.Option("--missing-as-zero", help="Predictions that cannot be used count as missing."),
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Write an HTML page with tables and plots.", dir_okay=False),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Cases scored at once; otherwise one per core.")
    ] = None,
) -> None:
    """Score predictions of any tool: one row per case and region."""
    from client.dataset.guess import task_of
    from client.scoring.score import Scoring, score_folders
    from common.evaluation.empty_rules import RULES
    from common.evaluation.further_metrics import wanted_metrics
    from common.evaluation.scores import write_scores

    for path in filter(None, (output, report)):
        demand_writable(path)
    lesions = lesion_rules if lesion_wise else None
    further = wanted_metrics(metrics.split(","), nsd_tolerance_mm, lesions)
    scoring = Scoring(task_of(reference, task), hd95, RULES[rules], further)
    with progress("score") as tell:
        found = score_folders(
            reference,
            prediction,
            scoring,
            missing_as_zero=missing_as_zero,
            workers=workers,
            progress=tell,
        )
    write_scores(output, found.table, scoring.definition, found.further)
    for warning in found.warnings:
        say(f"warning: {warning}; counts as {scoring.words_for_missing}")
    if report:
        from client.scoring.score_page import write_page  # draws with matplotlib

        write_page(report, found, scoring, reference, prediction)
        say(f"{report}: tables and plots; it names cases")
    n_missing = len(found.missing) + len({defect.case for defect in found.unusable})
    lacking = f", {n_missing} of them without a prediction (Dice 0)" if n_missing else ""
    typer.echo(f"{output}: {len(found.results)} cases{lacking}; HD95 {hd95}, in mm; rules {rules}")


COMMANDS = (inspect, fingerprint, preprocess, predict, score, view, privacy)
