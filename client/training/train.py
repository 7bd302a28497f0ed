"""The training loop of one round: seeded batches in, trained network out."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from client.batches.patches import Batch
from client.device import Device
from client.training.compiling import Forward
from client.training.loss import segmentation_loss
from client.training.optimise import Pace, build_optimizer, clip, set_rate
from common.config import Output, Training
from common.errors import FederationError
from common.losses import NNUNET_LOSS, Loss
from common.network import extra_loss
from common.task import Task


@dataclass(frozen=True)
class Objective:
    """What is minimised."""

    task: Task
    output: Output
    batch_dice: bool
    supervision: tuple[float, ...]
    """Weight of each stage of the network's output, finest first."""
    proximal_mu: float
    """FedProx (Li et al. 2020): mu / 2 * ||w - w received||^2; 0 is FedAvg, bit for bit."""
    terms: Loss = NNUNET_LOSS

    def per_sample(self) -> "Objective":
        """Return the objective whose loss is a mean over samples, none of which sees another."""
        return replace(self, batch_dice=False)


@dataclass(eq=False)
class Learner:
    """All that changes while a round is trained; what a checkpoint holds."""

    network: nn.Module
    forward: Forward
    """What computes the network: itself, or its compiled form."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    clip_norm: float
    received: list[Tensor]
    """The parameters that the round began with; empty without a proximal term."""
    losses: list[Tensor] = field(default_factory=list)
    """One scalar per step done, on the device: reading one would make the host wait for it."""

    @property
    def step(self) -> int:
        """Number of the next step of the round, counted from 0."""
        return len(self.losses)


def begin(
    network: nn.Module,
    training: Training,
    device: Device,
    *,
    proximal: bool,
    forward: Forward | None = None,
) -> Learner:
    """Return the learner of a round that has just received its network."""
    origin = network.parameters() if proximal else ()
    return Learner(
        network=network,
        forward=forward or network,
        optimizer=build_optimizer(network, training),
        scaler=device.gradient_scaler(),
        clip_norm=training.gradient_clip_norm,
        received=[parameter.detach().clone() for parameter in origin],
    )


def train(
    learner: Learner,
    batches: Iterable[Batch],
    objective: Objective,
    pace: Pace,
    device: Device,
    *,
    seed_of_step: Callable[[int], int] | None = None,
    after_step: Callable[[Learner], None] | None = None,
) -> tuple[int, float]:
    """Train a network in place, one optimiser step per batch, to the end of a round.

    Args:
        learner: at the round's first step, or where a checkpoint left it.
        batches: those of the steps from there on.
        objective: what is minimised.
        pace: gives the learning rate of every step.
        device: where the network is.
        seed_of_step: seeds what is random inside a network, such as dropout.
        after_step: called after every step, for example to keep a checkpoint.

    Returns:
        Number of steps and mean loss, of the whole round.

    Raises:
        FederationError: when the loss is no longer finite.
    """
    learner.network.train()
    for batch in batches:
        if seed_of_step is not None:
            torch.manual_seed(seed_of_step(learner.step))
        learner.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(learner, batch, objective, device)
        learner.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        learner.scaler.unscale_(learner.optimizer)
        follow_gradients(learner, objective, pace)
        learner.losses.append(loss.detach())
        if after_step is not None:
            after_step(learner)
    mean = torch.stack(learner.losses).mean().item() if learner.losses else 0.0
    if not math.isfinite(mean):
        raise FederationError(
            f"training diverged: mean loss {mean}; expected a finite loss; lower learning_rate"
        )
    return learner.step, mean


def follow_gradients(learner: Learner, objective: Objective, pace: Pace) -> None:
    """Take one step of the optimiser along the gradients that lie in the parameters, in place.

    Before it the gradient of the proximal term is added and the norm of them all is bounded.
    """
    set_rate(learner.optimizer, pace.rate(learner.step))
    _add_proximal_gradient(learner.network, learner.received, objective.proximal_mu)
    clip(learner.network, learner.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()


def loss_of(learner: Learner, batch: Batch, objective: Objective, device: Device) -> Tensor:
    """Return the loss of a batch, a scalar with the network's graph."""
    images = device.place(torch.from_numpy(batch.images))
    labels = torch.from_numpy(batch.labels).to(device.device, non_blocking=True)
    with device.autocast():
        logits = learner.forward(images)
    loss = segmentation_loss(
        logits,
        labels,
        objective.task,
        objective.output,
        batch_dice=objective.batch_dice,
        supervision=objective.supervision,
        terms=objective.terms,
    )
    besides = extra_loss(learner.network)
    return loss if besides is None else loss + besides


def _add_proximal_gradient(network: nn.Module, received: list[Tensor], mu: float) -> None:
    """Add the gradient of the proximal term itself: cheaper than autograd, and data-independent."""
    if mu == 0:
        return
    for parameter, origin in zip(network.parameters(), received, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=mu)
