"""Segment every case of a folder with one model or several, and write what was found.

Every file is written whole or not at all, a case's labels last; `prediction.json` beside them says
by what they were made and which cases are done, so that a stopped prediction can go on. Maps lie
two folders below, where nobody takes them for labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from client.dataset.inspection import check
from client.dataset.layouts import describe
from client.dataset.nifti import Grid, write_image, write_labels
from client.export import TrainedModel
from client.prediction.prediction_record import MAPS, RECORD, record_of, started
from client.prediction.predictors import Input, inputs, ready
from client.prediction.segment import (
    LABELS_ONLY,
    Predictor,
    Segmentation,
    Slabs,
    Wanted,
    decided,
    mean_of_models,
    probability_slabs,
)
from client.prediction.workspace import Workspace
from common.case import Case, DatasetDescription
from common.codec import write_json
from common.config import Precision
from common.errors import ConfigError
from common.evaluation.postprocess import Chain, in_words, post_processed
from common.task import Task

Progress = Callable[[float, int], None]


@dataclass(frozen=True)
class Options:
    """What is written besides labels, and how the machine is used."""

    wanted: Wanted = LABELS_ONLY
    go_on: bool = False
    """Whether to skip cases that an earlier run of the same models has written."""
    max_memory_bytes: int | None = None
    """For probabilities; beyond it they lie on disk. None for a quarter of the machine's."""
    mirroring: bool | None = None
    """None for what the run's configuration says."""
    precision: Precision | None = None
    """None for what the run's configuration says."""
    postprocessing: bool = True
    """Whether the steps that the run found are done."""


def segment_folder(
    models: Sequence[TrainedModel],
    folder: Path,
    output: Path,
    progress: Progress,
    options: Options,
) -> tuple[str, ...]:
    """Segment every case of a folder and write NIfTI in each image's own grid and orientation.

    Batch-norm statistics, if a model has any, are estimated on these images.

    Args:
        models: of one task; their probabilities are averaged. Plans may differ.
        folder: images in any layout.
        output: gets one label file per case, and maps if wanted.
        progress: told cases done, with the fraction of the present one, and all cases.
        options: what is wanted besides.

    Returns:
        What was done about batch norm and to the labels, in words; nothing if all was done before.

    Raises:
        DataError: with all cases that lack a file, before anything is written.
        ConfigError: when models, folders or earlier predictions do not fit together.
    """
    models = [_with_options(model, options) for model in models]
    task = _one_task(models)
    found = describe(folder, task, labels_required=False)
    _require_no_overwriting(found, output)
    steps, note = _steps(models, options)
    made = started(
        record_of(models, steps), found.cases, output, options.wanted, go_on=options.go_on
    )
    pending = [case for case in found.cases if case.name not in made.cases]
    unlabelled = tuple(replace(case, label=None) for case in pending)
    check(replace(found, cases=unlabelled), task)
    if not pending:
        return ()
    predictors, notes = ready(models, found.cases)
    skipped = len(found.cases) - len(pending)
    for index, case in enumerate(pending, start=skipped):
        tell = partial(_tell_fraction, progress, index, len(found.cases))
        segmentation, grid = _segmentation(predictors, case, output, tell, options)
        labels = post_processed(segmentation.labels, steps, grid.spacing_mm)
        segmentation = replace(segmentation, labels=labels)
        _write(segmentation, grid, case.name, output)
        made = replace(made, cases=(*made.cases, case.name))
        write_json(output / RECORD, made)
        progress(index + 1, len(found.cases))
    return (*notes, *note)


def _steps(models: Sequence[TrainedModel], options: Options) -> tuple[Chain, tuple[str, ...]]:
    """Return what is done to the labels, and that in words.

    The steps of a model were tried on its own labels; an ensemble's are others.
    """
    steps, task = models[0].steps, models[0].agreement.terms.task
    if not any(model.steps for model in models) or not options.postprocessing:
        return (), ()
    if len(models) > 1:
        return (), ("no post-processing: what was found for one model is not tried on a mean",)
    words = ", then ".join(in_words(step, task) for step in steps)
    return steps, (f"post-processing: {words}",)


def _segmentation(
    predictors: Sequence[Predictor],
    case: Case,
    output: Path,
    tell: Callable[[float], None],
    options: Options,
) -> tuple[Segmentation, Grid]:
    """Predict one case with all models."""
    terms, n_models = predictors[0].agreement.terms, len(predictors)
    space = Workspace(options.max_memory_bytes, output)
    grid, seen_by = inputs(predictors, case)
    geometry = seen_by[0].prepared().geometry
    members = [
        partial(_member, predictor, seen, space, partial(_tell_model, tell, index, n_models))
        for index, (predictor, seen) in enumerate(zip(predictors, seen_by, strict=True))
    ]
    slabs = mean_of_models(members, geometry.cropped_shape, space)  # the crop is the same for all
    return decided(slabs, geometry, terms.task, predictors[0].output, options.wanted, space), grid


def _member(
    predictor: Predictor, seen: Input, space: Workspace, tell: Callable[[int, int], None]
) -> Slabs:
    case = seen.prepared()
    return probability_slabs(
        predictor, case.image, case.geometry, space, previous=seen.previous, progress=tell
    )


def _tell_model(
    tell: Callable[[float], None], index: int, n_models: int, done: int, total: int
) -> None:
    tell((index + done / total) / n_models)


def _tell_fraction(progress: Progress, done: int, total: int, fraction: float) -> None:
    if fraction < 1:  # a case is done when it is written
        progress(done + fraction, total)


def _write(found: Segmentation, grid: Grid, name: str, output: Path) -> None:
    """Write a case's files, its labels last."""
    if found.uncertainty is not None:
        write_image(output / MAPS / "uncertainty" / f"{name}.nii.gz", found.uncertainty, grid)
    for part, values in found.probabilities.items():
        path = output / MAPS / "probability" / f"{name}_{part}.nii.gz"
        write_image(path, values, grid, slope=1 / 255)
    write_labels(output / f"{name}.nii.gz", found.labels, grid)


def _with_options(model: TrainedModel, options: Options) -> TrainedModel:
    """Let the command line decide on mirroring and precision, where it does."""
    config = model.agreement.terms.config
    if options.mirroring is not None:
        evaluation = replace(config.evaluation, mirroring=options.mirroring)
        config = replace(config, evaluation=evaluation)
    if options.precision is not None:
        config = replace(config, training=replace(config.training, precision=options.precision))
    terms = replace(model.agreement.terms, config=config)
    first = _with_options(model.first, options) if model.first else None
    return replace(model, agreement=replace(model.agreement, terms=terms), first=first)


def _one_task(models: Sequence[TrainedModel]) -> Task:
    """Return the task of the models.

    Raises:
        ConfigError: when two of them segment different things, or see different channels.
    """
    first = models[0].agreement.terms
    for model in models[1:]:
        other = model.agreement.terms
        for what, one, another in (
            ("channels", first.task.channels, other.task.channels),
            ("labels", first.task.labels, other.task.labels),
            ("regions", first.task.regions, other.task.regions),
            ("region_labels", first.task.region_labels, other.task.region_labels),
            ("model.output", first.config.model.output, other.config.model.output),
        ):
            if one != another:
                raise ConfigError(
                    f"--model: {other.run}: expected the {what} of {first.run}, which are {one}, "
                    f"found {another}: models of an ensemble segment the same"
                )
    return first.task


def _require_no_overwriting(found: DatasetDescription, output: Path) -> None:
    """Demand that no prediction takes the place of an image or a reference, or looks like one.

    Raises:
        ConfigError: with the first file that would be lost, or the folder.
    """
    files = {path.resolve() for case in found.cases for path in (*case.images, case.label) if path}
    for case in found.cases:
        target = output / f"{case.name}.nii.gz"
        if target.resolve() in files:
            raise ConfigError(f"--output: {target} is part of the input; expected another folder")
    folder, place = found.folder.resolve(), output.resolve()
    inside = found.layout == "brats" and folder in place.parents  # each of its folders is a case
    if inside or place == folder or place in {path.parent for path in files}:
        raise ConfigError(f"--output: {output} belongs to the input; expected another folder")
