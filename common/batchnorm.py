"""Which tensors of a network leave a site: batch norm's own statistics stay (SiloBN, FedBN).

Sources: Andreux et al. 2020 (SiloBN: running statistics stay, scale and shift are averaged);
Li et al. 2021 (FedBN: all batch-norm tensors stay). The choice follows the module's type, never
a tensor's name. Integers always stay: batch counters and tables of indices are no quantities that
can be averaged, and every site builds the same tables.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.config import BatchNormSharing

STATISTICS = ("running_mean", "running_var")
AFFINE = ("weight", "bias")


def local_names(network: nn.Module, sharing: BatchNormSharing) -> frozenset[str]:
    """Return the names of the tensors that never appear in a message, in either direction."""
    kept = {
        "local-statistics": STATISTICS,
        "local": STATISTICS + AFFINE,
        "shared": (),
    }[sharing]
    of_norms = {
        f"{name}.{tensor}" if name else tensor
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        for tensor in kept
    }
    state = network.state_dict().items()
    return frozenset(of_norms | {name for name, tensor in state if not tensor.is_floating_point()})


def has_batch_norm(network: nn.Module) -> bool:
    """Return whether any layer keeps running statistics of batches."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())
