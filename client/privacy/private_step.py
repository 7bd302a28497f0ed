"""One step of DP-SGD: the clipped gradients of the drawn patients, their sum, and the noise.

The gradients are made one patient at a time, by an ordinary backward pass over its patches. That
holds for every layer, in every precision without a gradient scaler, compiled or not, and needs
memory for the weights twice over, whatever is drawn. Opacus's gradients of whole batches
(`client.privacy.per_sample`) are the same to rounding; `benchmarks/dp_step.py` compares both.

Source: Abadi et al. 2016, Deep learning with differential privacy, algorithm 1; the sum is divided
by the expected number of patients, not by how many were drawn, which is nobody's business.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from client.batches.patches import Batch
from client.privacy.clipping import add_clipped
from common.privacy.noise import Normals

LossOf = Callable[[Batch], Tensor]
"""From patches of one patient to their mean loss, a scalar with a graph."""


@dataclass(frozen=True)
class Mechanism:
    """What a step does; all of it is public."""

    clip_norm: float
    noise_multiplier: float
    """Deviation of the noise in units of `clip_norm`; above 0."""
    expected_patients: float
    """Sampling rate times the number of the site's patients."""
    patches_at_once: int
    """Largest part of a patient's patches in one pass; bounds the memory."""

    def __post_init__(self) -> None:
        """Refuse what would be no mechanism at all."""
        values = (self.clip_norm, self.noise_multiplier, self.expected_patients)
        if not all(0 < value < float("inf") for value in values):
            raise ValueError(f"expected finite values above 0, found {self}")


def clipped_sum(
    parameters: Sequence[nn.Parameter],
    patients: Iterable[Batch],
    loss_of: LossOf,
    mechanism: Mechanism,
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the sum of the patients' clipped gradients, before any noise, and their losses.

    One patient more or less changes the sum by at most `mechanism.clip_norm`. Neither may leave the
    site. The parameters are left without gradients.

    Args:
        parameters: of the network that `loss_of` runs.
        patients: all patches of one drawn patient each; may be empty.
        loss_of: as in `LossOf`; must depend on no other patient.
        mechanism: gives the clip norm.
    """
    total = [torch.zeros_like(p, dtype=torch.float32).detach() for p in parameters]
    losses = []
    for patches in patients:
        losses.append(_backward(patches, loss_of, mechanism.patches_at_once))
        add_clipped(total, [parameter.grad for parameter in parameters], mechanism.clip_norm)
        for parameter in parameters:
            parameter.grad = None
    return total, losses


def noised_mean(total: Iterable[Tensor], mechanism: Mechanism, normals: Normals) -> list[Tensor]:
    """Return the sum with noise on every value, divided by the expected number of patients."""
    deviation = mechanism.noise_multiplier * mechanism.clip_norm
    return [_noised(tensor, deviation, normals) / mechanism.expected_patients for tensor in total]


def _noised(tensor: Tensor, deviation: float, normals: Normals) -> Tensor:
    noise = normals(tensor.numel(), tensor.device).view(tensor.shape)
    return torch.empty_like(tensor).copy_(noise.mul_(deviation).add_(tensor))


def _backward(patches: Batch, loss_of: LossOf, at_once: int) -> Tensor:
    """Leave the gradient of the mean loss of all patches in the parameters; return that loss."""
    n, losses = len(patches.images), []
    for part in _parts(patches, at_once):
        loss = loss_of(part) * (len(part.images) / n)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _parts(patches: Batch, at_once: int) -> Iterator[Batch]:
    for start in range(0, len(patches.images), at_once):
        chosen = slice(start, start + at_once)
        yield Batch(patches.images[chosen], patches.labels[chosen])
