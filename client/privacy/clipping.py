"""Clipping: no patient changes the sum of gradients by more than the clip norm.

Source: Abadi et al. 2016, Deep learning with differential privacy, algorithm 1.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_FACTOR = 1e-37  # below it float32 loses digits, and the bound with them
MARGIN = 1e-6  # more than rounding in float32 adds to a norm, so that the bound holds after it


def add_clipped(
    total: Sequence[Tensor], gradient: Sequence[Tensor | None], clip_norm: float
) -> None:
    """Add one patient's gradient to the sum, scaled down to a norm of at most `clip_norm`.

    A gradient that is not finite everywhere counts as zeros: no scaling would bound it.

    Args:
        total: sum so far, float32, one tensor per parameter; changed in place.
        gradient: of one patient; None where the loss does not depend on a parameter.
        clip_norm: largest L2 norm of all tensors together.
    """
    pairs = [(t, g.detach().float()) for t, g in zip(total, gradient, strict=True) if g is not None]
    factor = clip_factor(norm_of([part for _, part in pairs]), clip_norm)
    if factor == 0:
        return
    for tensor, part in pairs:
        if factor > SMALLEST_FACTOR:
            tensor.add_(part, alpha=factor)
        else:
            tensor.add_(part.double().mul_(factor))


def norm_of(gradient: Sequence[Tensor]) -> float:
    """Return the L2 norm of all tensors together; 0 for none, inf or NaN where one value is.

    In float64: squares of large float32 values would overflow, and be clipped to nothing.
    """
    if not gradient:
        return 0.0
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in gradient]
    return float(torch.linalg.vector_norm(torch.stack(norms)))


def clip_factor(norm: float, clip_norm: float) -> float:
    """Return what a gradient of such a norm is multiplied by, in [0, 1]; 0 if it is not finite."""
    if not math.isfinite(norm):
        return 0.0
    bound = clip_norm / (1 + MARGIN)
    return 1.0 if norm <= bound else bound / norm
