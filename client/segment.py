"""From a prepared image to labels on the image's own grid: predict, restore, decide."""

import numpy as np

from client.device import Device
from client.predict import decide, predict
from client.preprocess import Geometry, restore, uncrop
from client.site import Agreement
from common.axes import Image, LabelMap
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
