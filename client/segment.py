"""From a prepared image to labels on the image's own grid: predict, restore, decide."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.device import Device
from client.export import TrainedModel
from client.inspection import check
from client.layouts import describe
from client.nifti import read_scan, write_labels
from client.predict import decide, predict
from client.preprocess import Geometry, Prepared, prepare, restore, uncrop
from client.site import Agreement
from client.statistics import calibrate_on, received_network
from common.axes import Image, LabelMap
from common.case import Case
from common.errors import ConfigError
from common.network import UNet


def segment(
    image: Image, geometry: Geometry, network: UNet, agreement: Agreement, device: Device
) -> LabelMap:
    """Return the predicted labels of a prepared image.

    Args:
        image: prepared intensities (channel, network axes).
        geometry: how it lies in the file's RAS+ image.
        network: with its own batch-norm statistics in place.
        agreement: plan and settings of the run.
        device: where to compute.

    Returns:
        Label values, axes (z, y, x), of the whole RAS+ image.
    """
    config = agreement.terms.config
    probabilities = predict(
        network,
        image,
        agreement.configuration.patch_size,
        config.model.output,
        device,
        mirroring=config.evaluation.mirroring,
    )
    labels = decide(restore(probabilities, geometry), agreement.terms.task, config.model.output)
    return uncrop(np.ascontiguousarray(labels), geometry)


def segment_folder(
    trained: TrainedModel, folder: Path, output: Path, progress: Callable[[int, int], None]
) -> str:
    """Segment every case of a folder and write NIfTI in each image's own grid and orientation.

    Batch-norm statistics, if the model has any, are estimated on these images.

    Returns:
        What was done about batch norm, in words.

    Raises:
        DataError: with all cases that lack a file, before anything is written.
    """
    agreement = trained.agreement
    task = agreement.terms.task
    found = describe(folder, task, labels_required=False)
    check(replace(found, cases=tuple(replace(case, label=None) for case in found.cases)), task)
    _require_no_overwriting(found.cases, output)
    cases = found.cases
    network, device = received_network(agreement, trained.weights)
    images = [lambda case=case: _prepared(case, agreement).image for case in cases]
    note = calibrate_on(images, "prediction", agreement, network, device)
    for done, case in enumerate(cases, start=1):
        scan = read_scan(case, len(task.channels))
        prepared = _prepared(case, agreement)
        labels = segment(prepared.image, prepared.geometry, network, agreement, device)
        write_labels(output / f"{case.name}.nii.gz", labels, scan.grid)
        progress(done, len(cases))
    return note


def _require_no_overwriting(cases: Sequence[Case], output: Path) -> None:
    """Demand that no prediction takes the place of an image or a reference.

    Raises:
        ConfigError: with the first file that would be lost.
    """
    files = {path.resolve() for case in cases for path in (*case.images, case.label) if path}
    for case in cases:
        target = output / f"{case.name}.nii.gz"
        if target.resolve() in files:
            raise ConfigError(f"--output: {target} is part of the input; expected another folder")


def _prepared(case: Case, agreement: Agreement) -> Prepared:
    scan = read_scan(case, len(agreement.terms.task.channels))
    plan, configuration = agreement.plan, agreement.configuration
    return prepare(scan.image, scan.spacing_mm, None, plan, configuration)
