"""The training loop of one round under differential privacy: a step sees the patients drawn for it.

What follows the noise (the proximal term, the bound on the whole gradient's norm, the optimiser) is
that of `client.training.train`: it looks at nothing of a patient. Losses have no noise. They are
for the site's own log, and nothing is decided by them: whether training diverged is read from the
weights, which are noised.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from client.batches.patches import Batch
from client.device import Device
from client.privacy.private_step import Mechanism, clipped_sum, noised_mean
from client.privacy.requirements import buffers_of, require_same_buffers, require_separate
from client.training.optimise import Pace, trained
from client.training.train import Learner, Objective, follow_gradients, loss_of
from common.errors import FederationError, PolicyError
from common.privacy.noise import Normals, secure_normals


def train_privately(
    learner: Learner,
    steps: Iterable[Iterable[Batch]],
    objective: Objective,
    pace: Pace,
    device: Device,
    *,
    mechanism: Mechanism,
    seed_of_step: Callable[[int], int] | None = None,
    after_step: Callable[[Learner], None] | None = None,
    normals: Normals = secure_normals,
) -> tuple[int, float]:
    """Train a network in place, one noisy step per draw of patients, to the end of a round.

    Args:
        learner: at the round's first step, or where a checkpoint left it.
        steps: from there on, all patches of every drawn patient; a draw may be empty. A step must
            be in the ledger by the time it is given.
        objective: what is minimised; overlap terms are of every sample, whatever it says.
        pace: gives the learning rate of every step.
        device: where the network is.
        mechanism: clipping and noise.
        seed_of_step: seeds what is random inside a network, such as dropout; never the noise.
        after_step: called after every step, for example to keep a checkpoint.
        normals: the noise; only tests bring their own.

    Returns:
        Number of steps and mean loss, of the whole round; the loss may not leave the site. NaN if
        no patient was drawn.

    Raises:
        PolicyError: with the rule "privacy", for a network or a precision that cannot be private.
        FederationError: when the noised weights are no longer finite.
    """
    _require_sound(learner)
    network, parameters = learner.network.train(), trained(learner.network)
    buffers = buffers_of(network)
    objective = objective.per_sample()
    loss = partial(_loss, learner=learner, objective=objective, device=device)
    for patients in steps:
        if seed_of_step is not None:
            torch.manual_seed(seed_of_step(learner.step))
        learner.optimizer.zero_grad(set_to_none=True)
        total, losses = clipped_sum(parameters, patients, loss, mechanism)
        for parameter, mean in zip(parameters, noised_mean(total, mechanism, normals), strict=True):
            parameter.grad = mean
        follow_gradients(learner, objective, pace)
        learner.losses.append(_mean(losses, device))
        if after_step is not None:
            after_step(learner)
    require_same_buffers(network, buffers)
    _require_finite(parameters)
    return learner.step, _mean_of_round(learner)


def _loss(batch: Batch, *, learner: Learner, objective: Objective, device: Device) -> Tensor:
    return loss_of(learner, batch, objective, device)


def _require_sound(learner: Learner) -> None:
    require_separate(learner.network)
    if learner.scaler.is_enabled():
        raise PolicyError(
            "[privacy]: expected float32 or bfloat16, found float16, whose skipped steps depend "
            "on the data",
            "privacy",
        )


def _require_finite(parameters: Iterable[Tensor]) -> None:
    if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
        raise FederationError(
            "training diverged: expected finite weights after the noise; lower learning_rate"
        )


def _mean(losses: list[Tensor], device: Device) -> Tensor:
    """Return the mean loss of a step; NaN for one that drew nobody."""
    if not losses:
        return torch.full((), math.nan, device=device.device)
    return torch.stack(losses).mean()


def _mean_of_round(learner: Learner) -> float:
    return torch.stack(learner.losses).nanmean().item() if learner.losses else 0.0
