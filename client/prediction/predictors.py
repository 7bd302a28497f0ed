"""Trained models made ready to predict, and what each of them sees of a case."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from client.dataset.nifti import Grid, Scan, read_scan
from client.export import TrainedModel
from client.prediction.segment import Predictor, on_network_grid, segment, with_previous
from client.preparation.preprocess import Prepared, prepare
from client.site import Agreement
from client.statistics import calibrate_on, received_network
from common.axes import Image, LabelMap
from common.case import Case


def ready(
    models: Sequence[TrainedModel], cases: Sequence[Case]
) -> tuple[list[Predictor], tuple[str, ...]]:
    """Build the networks of models, with batch-norm statistics of these cases if they need any.

    Returns:
        One predictor per model, and what was done about batch norm, in words.
    """
    predictors: list[Predictor] = []
    notes: list[str] = []
    for model in models:
        first = None
        if model.first is not None:
            (first,), said = ready([model.first], cases)
            notes += [f"first stage: {note}" for note in said]
        agreement = model.agreement
        network, device = received_network(agreement, model.weights)
        mirroring = agreement.terms.config.evaluation.mirroring
        predictor = Predictor(network, agreement, device, mirroring, first)
        images = [partial(_image, case, predictor) for case in cases]
        notes.append(calibrate_on(images, "prediction", agreement, network, device))
        predictors.append(predictor)
    return predictors, tuple(notes)


def _image(case: Case, predictor: Predictor) -> Image:
    """Return what the network sees of a whole case."""
    agreement = predictor.agreement
    scan = read_scan(case, len(agreement.terms.task.channels))
    prepared, previous = _prepared(scan, agreement), _previous(predictor, scan)
    if previous is None:
        return prepared.image
    labels = on_network_grid(previous, prepared.geometry)
    return with_previous(prepared.image, labels, agreement.terms.task)


@dataclass(frozen=True)
class Input:
    """What a model sees of a case."""

    prepared: Callable[[], Prepared]
    previous: LabelMap | None
    """What the first stage of a cascade predicted, axes (z, y, x) of the RAS+ image."""


def inputs(predictors: Sequence[Predictor], case: Case) -> tuple[Grid, list[Input]]:
    """Return the file's grid, and what each model sees; one image is in memory at a time.

    Models of one plan share theirs, and the scan is dropped.
    """
    agreements = [predictor.agreement for predictor in predictors]
    scan = read_scan(case, len(agreements[0].terms.task.channels))
    previous = [_previous(predictor, scan) for predictor in predictors]
    first = agreements[0]
    if all(_same_grid(first, other) for other in agreements):
        prepared = _prepared(scan, first)
        return scan.grid, [Input(lambda: prepared, labels) for labels in previous]
    return scan.grid, [
        Input(partial(_prepared, scan, other), labels)
        for other, labels in zip(agreements, previous, strict=True)
    ]


def _same_grid(one: Agreement, other: Agreement) -> bool:
    names = (one.terms.config.model.configuration, other.terms.config.model.configuration)
    return one.plan.hash == other.plan.hash and names[0] == names[1]


def _previous(predictor: Predictor, scan: Scan) -> LabelMap | None:
    """Return what a cascade's first stage predicts; None without one."""
    first = predictor.first
    if first is None:
        return None
    seen = _prepared(scan, first.agreement)
    return segment(seen.image, seen.geometry, first.network, first.agreement, first.device)


def _prepared(scan: Scan, agreement: Agreement) -> Prepared:
    return prepare(scan.image, scan.spacing_mm, None, agreement.plan, agreement.configuration)
