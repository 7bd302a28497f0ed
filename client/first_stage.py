"""A cascade: what the finished first stage predicts for a site's cases is input of the second.

The first stage has seen the training cases, which makes its labels of them better than those of
new cases; that they are varied in training (`client.batches.cascade_input`) is what counters it.
nnU-Net predicts each case with a model of its cross-validation instead.
"""

from collections.abc import Sequence

from client.agreement import entries, split, told_count
from client.caching.cache import CacheEntry
from client.caching.entry_files import add_previous
from client.permission import permitted_agreement
from client.prediction.segment import on_network_grid, segment, with_previous
from client.site import Agreement, SiteConfig, site_log
from client.statistics import calibrate_on, received_network
from common.axes import Image, Weights
from common.errors import DataError, MessageError
from common.messages import FirstStageDone, FirstStageTask
from common.packing import weights_digest

EVERYTHING = (slice(None), slice(None), slice(None))


def predict_first_stage(site: SiteConfig, task: FirstStageTask, weights: Weights) -> FirstStageDone:
    """Predict all cases of this site with the first stage and keep the labels in the cache.

    Cases whose labels are there already are not predicted again.

    Raises:
        MessageError: when these are not the weights that were agreed on.
    """
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    wanted = agreement.terms.first_stage
    if wanted is None or weights_digest(weights) != wanted.weights_sha256:
        raise MessageError("first stage: expected the weights that were agreed on")
    training, validation = split(site, agreement)
    cases = (*training, *validation)
    fine = entries(site, agreement, cases)
    if any(entry.previous_source != wanted.weights_sha256 for entry in fine):
        first = agreement.of_first_stage()
        coarse = entries(site, first, cases)
        _predict(site, first, weights, coarse, fine)
    return FirstStageDone(n_cases=told_count(site, agreement.terms.config, len(fine)))


def network_input(entry: CacheEntry, agreement: Agreement) -> Image:
    """Return what the network sees of a whole case: its image, and a first stage's labels if any.

    Raises:
        DataError: when the cascade's first stage has not predicted this case.
    """
    image = entry.image(EVERYTHING)
    if agreement.terms.first_stage is None:
        return image
    require_first_stage([entry], agreement)
    return with_previous(image, entry.previous(EVERYTHING), agreement.terms.task)


def require_first_stage(cached: Sequence[CacheEntry], agreement: Agreement) -> None:
    """Demand the agreed first stage's labels of all cases, if there is a first stage.

    Raises:
        DataError: when some are missing, for example because a case was prepared again.
    """
    wanted = agreement.terms.first_stage
    if wanted and any(entry.previous_source != wanted.weights_sha256 for entry in cached):
        raise DataError("first stage: expected its labels of every case; resume the run")


def _predict(
    site: SiteConfig,
    first: Agreement,
    weights: Weights,
    coarse: Sequence[CacheEntry],
    fine: Sequence[CacheEntry],
) -> None:
    """Put the first stage's labels beside every case of the second that lacks them."""
    source = weights_digest(weights)
    network, device = received_network(first, weights)
    images = [lambda entry=entry: entry.image(EVERYTHING) for entry in coarse]
    note = calibrate_on(images, site.name, first, network, device)
    site_log(site).info("first stage of the cascade: %d cases; %s", len(fine), note)
    for low, full in zip(coarse, fine, strict=True):
        if full.previous_source == source:
            continue
        labels = segment(low.image(EVERYTHING), low.meta.geometry, network, first, device)
        add_previous(full, on_network_grid(labels, full.meta.geometry), source)
