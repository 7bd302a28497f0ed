"""One round of patient-level DP-SGD: who is drawn, what they contribute, what is charged, and when.

A step is charged before anything of it is computed. After a crash the steps since the last
checkpoint are drawn, noised and charged again: what a site spent is never too little.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import islice

import numpy as np
from torch import nn

from client.batches.loader import idle_cores, prepared
from client.batches.patches import Batch, Recipe
from client.caching.cache import CacheEntry
from client.device import Device
from client.privacy.budget import charged
from client.privacy.requirements import private_device, private_mechanism
from client.privacy.sampling import Draw, poisson_draws
from client.site import site_log
from client.training.local_training import LocalRound, train_locally
from client.training.private_training import train_privately
from common.privacy.settings import PatientPrivacy
from common.random import step_rng

Patients = Sequence[Sequence[CacheEntry]]
"""The cases of every patient of the site."""


def train_private_round(
    wanted: LocalRound,
    privacy: PatientPrivacy,
    network: nn.Module,
    device: Device,
    patients: Patients,
    recipe: Recipe,
    before_step: Callable[[], None],
) -> int:
    """Train a network that holds the received weights, in place, without telling any patient.

    Args:
        wanted: the round.
        privacy: what the run promises.
        network: in it are afterwards weights that may leave the site.
        device: where the network is; float16 is not used.
        patients: the training cases of every patient.
        recipe: how patches are made; of a patient, all at once.
        before_step: called before every step.

    Returns:
        Number of steps. The mean loss stands in the site's log only.

    Raises:
        PolicyError: with the rule "privacy", before anything that would not be private or that the
            budget does not allow.
        FederationError: when the noised weights are no longer finite.
    """
    site, chosen = wanted.site, wanted.agreement.terms.config.training
    mechanism = private_mechanism(wanted.agreement, privacy, len(patients))
    device = private_device(device, chosen.precision)
    with ExitStack() as open_until_done:

        def steps_from(first: int, n_steps: int) -> Iterator[Iterator[Batch]]:
            charge = open_until_done.enter_context(
                charged(site, wanted.agreement, wanted.task, len(patients), n_steps)
            )
            draws = poisson_draws(len(patients), privacy.sampling_rate, n_steps)
            patches = open_until_done.enter_context(
                closing(_patches(wanted, patients, recipe, draws, first))
            )
            for drawn in draws:
                before_step()
                charge()
                yield islice(patches, len(drawn))

        loop = partial(train_privately, mechanism=mechanism)
        n_steps, loss = train_locally(wanted, network, device, loop, steps_from)
    site_log(site).info("round %d: mean loss %.4f, not sent", wanted.task.round, loss)
    return n_steps


def _patches(
    wanted: LocalRound, patients: Patients, recipe: Recipe, draws: Sequence[Draw], first: int
) -> Generator[Batch, None, None]:
    """Yield all patches of every drawn patient, step by step, prepared in the background.

    Where the patches lie may be known: whatever is made of a patient's own data is clipped.
    """
    seed, site, task = wanted.agreement.terms.config.federation.seed, wanted.site, wanted.task

    def rng_of(step: int, index: int) -> np.random.Generator:
        return step_rng(seed, site.name, task.round, step, f"patches of {index}")

    contributions = (
        (patients[index], partial(rng_of, step, index))
        for step, drawn in enumerate(draws, start=first)
        for index in drawn
    )
    return prepared(contributions, recipe, workers=idle_cores())
