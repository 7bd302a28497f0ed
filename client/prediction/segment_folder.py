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
from client.dataset.nifti import Grid, Scan, read_scan, write_image, write_labels
from client.export import TrainedModel
from client.prediction.prediction_record import MAPS, RECORD, record_of, started
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
from client.preparation.preprocess import Prepared, prepare
from client.site import Agreement
from client.statistics import calibrate_on, received_network
from common.axes import Image
from common.case import Case, DatasetDescription
from common.codec import write_json
from common.config import Precision
from common.errors import ConfigError
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
        What was done about batch norm, per model in words; nothing if no case was left to do.

    Raises:
        DataError: with all cases that lack a file, before anything is written.
        ConfigError: when models, folders or earlier predictions do not fit together.
    """
    models = [_with_options(model, options) for model in models]
    task = _one_task(models)
    found = describe(folder, task, labels_required=False)
    _require_no_overwriting(found, output)
    made = started(record_of(models), found.cases, output, options.wanted, go_on=options.go_on)
    pending = [case for case in found.cases if case.name not in made.cases]
    unlabelled = tuple(replace(case, label=None) for case in pending)
    check(replace(found, cases=unlabelled), task)
    if not pending:
        return ()
    predictors, notes = _ready(models, found.cases)
    skipped = len(found.cases) - len(pending)
    for index, case in enumerate(pending, start=skipped):
        tell = partial(_tell_fraction, progress, index, len(found.cases))
        segmentation, grid = _segmentation(predictors, case, output, tell, options)
        _write(segmentation, grid, case.name, output)
        made = replace(made, cases=(*made.cases, case.name))
        write_json(output / RECORD, made)
        progress(index + 1, len(found.cases))
    return notes


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
    grid, preparations = _preparations(predictors, case)
    geometry = preparations[0]().geometry
    members = [
        partial(_member, predictor, prepared, space, partial(_tell_model, tell, index, n_models))
        for index, (predictor, prepared) in enumerate(zip(predictors, preparations, strict=True))
    ]
    slabs = mean_of_models(members, geometry.cropped_shape, space)  # the crop is the same for all
    return decided(slabs, geometry, terms.task, predictors[0].output, options.wanted, space), grid


def _preparations(
    predictors: Sequence[Predictor], case: Case
) -> tuple[Grid, list[Callable[[], Prepared]]]:
    """Return the file's grid, and what gives each model its image; one is in memory at a time.

    Models of one plan share theirs, and the scan is dropped.
    """
    agreements = [predictor.agreement for predictor in predictors]
    scan = read_scan(case, len(agreements[0].terms.task.channels))
    first = agreements[0]
    if all(_same_grid(first, other) for other in agreements):
        prepared = _prepared(scan, first)
        return scan.grid, [lambda: prepared for _ in agreements]
    return scan.grid, [partial(_prepared, scan, other) for other in agreements]


def _same_grid(one: Agreement, other: Agreement) -> bool:
    names = (one.terms.config.model.configuration, other.terms.config.model.configuration)
    return one.plan.hash == other.plan.hash and names[0] == names[1]


def _member(
    predictor: Predictor,
    prepared: Callable[[], Prepared],
    space: Workspace,
    tell: Callable[[int, int], None],
) -> Slabs:
    ready = prepared()
    return probability_slabs(predictor, ready.image, ready.geometry, space, progress=tell)


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


def _prepared(scan: Scan, agreement: Agreement) -> Prepared:
    return prepare(scan.image, scan.spacing_mm, None, agreement.plan, agreement.configuration)


def _ready(
    models: Sequence[TrainedModel], cases: Sequence[Case]
) -> tuple[list[Predictor], tuple[str, ...]]:
    """Build the networks; batch norm is calibrated on all cases, also on those already done."""
    predictors, notes = [], []
    for model in models:
        agreement = model.agreement
        network, device = received_network(agreement, model.weights)
        images = [partial(_image, case, agreement) for case in cases]
        notes.append(calibrate_on(images, "prediction", agreement, network, device))
        mirroring = agreement.terms.config.evaluation.mirroring
        predictors.append(Predictor(network, agreement, device, mirroring))
    return predictors, tuple(notes)


def _image(case: Case, agreement: Agreement) -> Image:
    return _prepared(read_scan(case, len(agreement.terms.task.channels)), agreement).image


def _with_options(model: TrainedModel, options: Options) -> TrainedModel:
    """Let the command line decide on mirroring and precision, where it does."""
    config = model.agreement.terms.config
    if options.mirroring is not None:
        evaluation = replace(config.evaluation, mirroring=options.mirroring)
        config = replace(config, evaluation=evaluation)
    if options.precision is not None:
        config = replace(config, training=replace(config.training, precision=options.precision))
    terms = replace(model.agreement.terms, config=config)
    return replace(model, agreement=replace(model.agreement, terms=terms))


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
