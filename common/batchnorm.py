"""Which tensors of a network leave a site: batch norm's own statistics stay (SiloBN, FedBN).

Sources: Andreux et al. 2020 (SiloBN: running statistics stay, scale and shift are averaged);
Li et al. 2021 (FedBN: all batch-norm tensors stay). The choice follows the module's type, never
a tensor's name. The batch counter always stays: it is no quantity that can be averaged.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.config import BatchNormSharing

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
AFFINE = ("weight", "bias")


def local_names(network: nn.Module, sharing: BatchNormSharing) -> frozenset[str]:
    """Return the names of the tensors that never appear in a message, in either direction."""
    kept = {
        "local-statistics": STATISTICS,
        "local": STATISTICS + AFFINE,
        "shared": ("num_batches_tracked",),
    }[sharing]
    return frozenset(
        f"{name}.{tensor}"
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for tensor in kept
    )


def has_batch_norm(network: nn.Module) -> bool:
    """Return whether any layer keeps running statistics of batches."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())
