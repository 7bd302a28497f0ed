"""The training loop of one round: seeded batches in, trained network out."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.device import Device
from client.loss import segmentation_loss
from client.patches import Batch
from common.config import Output, Training
from common.errors import FederationError
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


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps of all rounds."""

    first_step: int
    total_steps: int
    learning_rate: float
    power: float

    def rate(self, step: int) -> float:
        """Return the rate at a step of this round, counted from 0 (poly schedule, nnU-Net)."""
        left: float = 1 - (self.first_step + step) / self.total_steps
        return float(self.learning_rate * left**self.power)


def train(
    network: nn.Module,
    batches: Iterable[Batch],
    objective: Objective,
    training: Training,
    schedule: Schedule,
    device: Device,
) -> tuple[int, float]:
    """Train a network in place, one optimiser step per batch.

    The optimiser starts afresh: its state is of another network after every aggregation.

    Returns:
        Number of steps and mean loss.

    Raises:
        FederationError: when the loss is no longer finite.
    """
    network.train()
    received = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = build_optimizer(network, training)
    scaler = device.gradient_scaler()
    losses: list[Tensor] = []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad(set_to_none=True)
        loss = _forward(network, batch, objective, device)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        _add_proximal_gradient(network, received, objective.proximal_mu)
        nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip_norm)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.detach())
    mean = torch.stack(losses).mean().item() if losses else 0.0
    if not math.isfinite(mean):
        raise FederationError(
            f"training diverged: mean loss {mean}; expected a finite loss; lower learning_rate"
        )
    return len(losses), mean


def build_optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return SGD with Nesterov momentum, or AdamW, over all parameters."""
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=training.weight_decay,
        )
    return torch.optim.AdamW(
        network.parameters(),
        lr=training.learning_rate,
        betas=(training.momentum, 0.999),
        weight_decay=training.weight_decay,
    )


def _forward(network: nn.Module, batch: Batch, objective: Objective, device: Device) -> Tensor:
    images = device.place(torch.from_numpy(batch.images))
    labels = torch.from_numpy(batch.labels).to(device.device, non_blocking=True)
    with device.autocast():
        logits = network(images)
    return segmentation_loss(
        logits,
        labels,
        objective.task,
        objective.output,
        batch_dice=objective.batch_dice,
        supervision=objective.supervision,
    )


def _add_proximal_gradient(network: nn.Module, received: list[Tensor], mu: float) -> None:
    """Add the gradient of the proximal term itself: cheaper than autograd, and data-independent."""
    if mu == 0:
        return
    for parameter, origin in zip(network.parameters(), received, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - origin, alpha=mu)
