"""What a training site does in a round: validate what it received, train, answer."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from client.agreement import entries, split
from client.batches.loader import batches, idle_cores
from client.batches.patches import Batch, Recipe
from client.caching.cache import CacheEntry, keep_in_memory
from client.device import Device, choose_device
from client.first_stage import EVERYTHING, network_input, require_first_stage
from client.permission import permitted_agreement, require_training
from client.prediction.predict import decide, predict
from client.prediction.segment import averaging_of
from client.privacy.budget import spent
from client.privacy.patients import site_patients
from client.privacy.private_round import train_private_round
from client.secure.masked_update import masked_update, require_secure
from client.site import Agreement, SiteConfig
from client.statistics import load_local, save_local, statistics_file
from client.training.local_training import LocalRound, train_locally
from client.training.train import train
from client.training_time import counted
from client.upload import prepare_upload
from common.augmentation import preset_of
from common.axes import LabelMap, Weights
from common.case import Case
from common.errors import PolicyError
from common.evaluation.metrics import BRATS_RULES
from common.messages import TrainTask, Update, Validated, ValidateTask
from common.network import load_all_weights, weights_of
from common.partial_sharing import withhold
from common.planning.plan import Configuration
from common.random import step_rng
from common.task import Task, regions_of

MEMORY_BUDGET_BYTES = 2**30  # for decompressed cases; little against a training step's own need


def train_round(site: SiteConfig, task: TrainTask, weights: Weights) -> tuple[Update, Weights]:
    """Train from the received weights for one round.

    Batch-norm statistics are those of this site's previous round; they are saved before the
    answer and are never part of it.
    """
    began = time.monotonic()
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    require_secure(site, agreement, task)
    training, _ = split(site, agreement)
    wanted = LocalRound(site, agreement, task, weights, len(training))
    require_training(site, agreement, wanted.n_steps)
    network, device, ready = network_after(site, agreement, task.method, task.round - 1, weights)
    validation = validation_dice(site, agreement, network, device) if ready else None
    n_steps, loss = train_on_cases(wanted, network, device)
    kept = agreement.local_names(network)
    save_local(statistics_file(site, task.run, task.method, task.round), network, kept)
    trained = {name: w for name, w in weights_of(network).items() if name not in kept}
    upload = agreement.terms.config.federation.upload
    payload, scales = prepare_upload(site, task, weights, trained, upload)
    update = Update(
        round=task.round,
        n_cases=len(training),
        n_steps=n_steps,
        loss=loss,
        seconds=time.monotonic() - began,
        scales=scales,
        validation=validation,
        spent=spent(site, agreement) if agreement.terms.config.privacy else None,
    )
    if task.secure is not None:
        return masked_update(site, agreement, task, update, weights, trained)
    return update, withhold(payload, weights, task.withheld_fraction)


def validate(site: SiteConfig, task: ValidateTask, weights: Weights) -> Validated:
    """Test the weights after a round, with this site's statistics, on its validation cases."""
    agreement = permitted_agreement(site, task.run, task.plan_hash)
    if agreement.terms.config.federation.secure_aggregation is not None:
        raise PolicyError("secure sum: validation is told only as a part of a sum", "privacy")
    network, device, ready = network_after(site, agreement, task.method, task.round, weights)
    return Validated(dice=validation_dice(site, agreement, network, device) if ready else None)


def network_after(
    site: SiteConfig, agreement: Agreement, method: str, round_: int, weights: Weights
) -> tuple[nn.Module, Device, bool]:
    """Build the network from received weights and the site's own tensors after `round_`.

    Returns:
        The network, its device, and whether it can predict: not before the first round, nor
        without statistics of this site.
    """
    config = agreement.terms.config
    torch.manual_seed(config.federation.seed)
    network, device = agreement.network(), choose_device(config.training.precision)
    kept = agreement.local_names(network)
    load_all_weights(network, weights, kept)
    ready = round_ > 0 and load_local(
        statistics_file(site, agreement.terms.run, method, round_), network, kept
    )
    device.place_network(network)
    return network, device, ready


def train_on_cases(
    wanted: LocalRound, network: nn.Module, device: Device
) -> tuple[int, float | None]:
    """Train a network that holds the received weights on the site's own cases, in place.

    Returns:
        Number of steps and mean loss; None instead of the loss with differential privacy.

    Raises:
        PolicyError: when the day's epochs or hours, or the budget of privacy, are used up.
    """
    site, agreement = wanted.site, wanted.agreement
    training, _ = split(site, agreement)
    cached = _in_memory(entries(site, agreement, training))
    require_first_stage(cached, agreement)
    n_epochs = require_training(site, agreement, wanted.n_steps)
    privacy = agreement.terms.config.privacy
    with counted(site, n_epochs) as before_step:
        if privacy is not None:
            recipe = _recipe(agreement, privacy.patches_per_patient)
            patients = _by_patient(site, training, cached)
            return train_private_round(
                wanted, privacy, network, device, patients, recipe, before_step
            ), None

        def batches_from(first: int, n_steps: int) -> Iterator[Batch]:
            for batch in _batches(site, agreement, cached, wanted.task, first, n_steps):
                before_step()
                yield batch

        return train_locally(wanted, network, device, train, batches_from)


def _by_patient(
    site: SiteConfig, cases: Sequence[Case], cached: Sequence[CacheEntry]
) -> list[list[CacheEntry]]:
    entry_of = {case.name: entry for case, entry in zip(cases, cached, strict=True)}
    return [[entry_of[name] for name in names] for names in site_patients(site, entry_of)]


def _in_memory(cached: tuple[CacheEntry, ...]) -> tuple[CacheEntry, ...]:
    """Keep what fits decompressed: patches of small images are then drawn ten times faster."""
    return keep_in_memory(cached, MEMORY_BUDGET_BYTES)


def _batches(
    site: SiteConfig,
    agreement: Agreement,
    cached: tuple[CacheEntry, ...],
    task: TrainTask,
    first_step: int,
    n_steps: int,
) -> Iterator[Batch]:
    seed = agreement.terms.config.federation.seed
    recipe = _recipe(agreement, agreement.configuration.batch_size)

    def rng_of_step(step: int) -> np.random.Generator:
        return step_rng(seed, site.name, task.round, step, "patches")

    return batches(cached, recipe, first_step, n_steps, rng_of_step, workers=idle_cores())


def _recipe(agreement: Agreement, batch_size: int) -> Recipe:
    planned, augmentation = agreement.configuration, agreement.terms.config.training.augmentation
    return Recipe(
        patch_size=planned.patch_size,
        batch_size=batch_size,
        preset=preset_of(augmentation),
        foreground_fraction=augmentation.foreground_fraction,
        in_plane=isinstance(planned, Configuration) and planned.anisotropic_augmentation,
        cascade_labels=agreement.cascade_labels,
        masked=tuple(n.scheme == "masked-z-score" for n in agreement.plan.normalization),
    )


def validation_dice(
    site: SiteConfig, agreement: Agreement, network: nn.Module, device: Device
) -> dict[str, float] | None:
    """Return the mean Dice per region over the validation cases, on the plan's grid.

    The grid of the plan, not of the file, and no mirroring: this is the curve of a run, cheap
    enough for every round; final results are measured on the files' own grid.
    """
    _, cases = split(site, agreement)
    if not cases or not site.policy.validation_means:
        return None
    task, output = agreement.terms.task, agreement.terms.config.model.output
    scores = []
    for entry in entries(site, agreement, cases):
        found = predict(
            network,
            network_input(entry, agreement),
            agreement.configuration.patch_size,
            output,
            device,
            mirroring=False,
            averaging=averaging_of(agreement.plan),
        )
        scores.append(_dice(entry.labels(EVERYTHING), decide(found, task, output), task))
    return {region: float(np.mean([s[region] for s in scores])) for region in task.regions}


def _dice(reference: LabelMap, prediction: LabelMap, task: Task) -> dict[str, float]:
    """Return the Dice of every region; 1 where reference and prediction are both empty."""
    masks = zip(
        task.regions, regions_of(reference, task), regions_of(prediction, task), strict=True
    )
    sizes = {r: (2 * np.count_nonzero(a & b), a.sum() + b.sum()) for r, a, b in masks}
    empty = BRATS_RULES.both_empty.dice
    return {region: overlap / n if n else empty for region, (overlap, n) in sizes.items()}
