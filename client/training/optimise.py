"""How weights follow gradients: the optimiser, its learning rate, and the norm of the gradients.

Source: nnU-Net (SGD with Nesterov momentum, gradients clipped to a norm); Kingma and Ba 2015
(Adam); Loshchilov and Hutter 2019 (AdamW).
"""

from dataclasses import dataclass

import torch
from torch import nn

from common.config import Training
from common.schedules import Schedule, share_of_rate

SECOND_BETA = 0.999  # Kingma and Ba 2015


@dataclass(frozen=True)
class Pace:
    """The learning rate over the steps of all rounds, as one site takes them."""

    schedule: Schedule
    learning_rate: float
    first_step: int
    """Steps of all rounds before this one."""
    total_steps: int
    """Steps of all rounds."""

    def rate(self, step: int) -> float:
        """Return the rate at a step of this round, counted from 0."""
        progress = (self.first_step + step) / self.total_steps
        return self.learning_rate * share_of_rate(self.schedule, progress)


def build_optimizer(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Return the optimiser of a run over all parameters that are not frozen, without any state yet.

    SGD is fused: for 31 million parameters on one core 9 ms instead of 103. Adam is so on an
    accelerator only: on the CPU the 30 ms that it would save are nothing in a step of seconds.
    """
    parameters, rate, decay = trained(network), training.learning_rate, training.weight_decay
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=training.momentum,
            nesterov=training.momentum > 0,
            weight_decay=decay,
            fused=True,
        )
    kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    fused = all(parameter.is_cuda for parameter in parameters) or None
    betas = (training.momentum, SECOND_BETA)
    return kind(parameters, lr=rate, betas=betas, weight_decay=decay, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip(network: nn.Module, norm: float) -> None:
    """Scale all gradients down together if their norm is above `norm`."""
    nn.utils.clip_grad_norm_(network.parameters(), norm)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that get gradients: all that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
