"""Which parameters of a network are trained: all of them, or only biases, norms and heads.

DP-BiTFiT: under differential privacy the norm of the noise grows with the square root of the number
of trained values, so that a model which was trained on public data is best trained further in few
of them. The heads belong to these, for the labels may be others. The choice follows the module's
type, never a tensor's name.

Source: Bu et al. 2022 (arXiv 2210.00036), Differentially private bias-term fine-tuning of
foundation models; Ben Zaken et al. 2022, BitFit.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from common.config import WITH_HEADS, TrainedPart
from common.errors import ConfigError
from common.network import CONVOLUTIONS, NORMS
from common.networks.unet import UNet


def trained_names(network: nn.Module, wanted: TrainedPart) -> frozenset[str]:
    """Return the names of the parameters that are trained; the others are frozen.

    Raises:
        ConfigError: when not all are wanted and the network does not tell which are its heads.
    """
    parameters = dict(network.named_parameters())
    if wanted == "all":
        return frozenset(parameters)
    if not isinstance(network, UNet):
        raise ConfigError(
            f"training.trained: {wanted!r} needs a network that tells which are its heads; "
            f"expected one of {', '.join(WITH_HEADS)}, found {type(network).__name__}"
        )
    chosen = {id(parameter) for parameter in _biases_and_norms(network)}
    return frozenset(name for name, parameter in parameters.items() if id(parameter) in chosen)


def freeze_others(network: nn.Module, wanted: TrainedPart) -> None:
    """Have no gradient computed for what is not trained; before an optimiser is built.

    Raises:
        ConfigError: as `trained_names`.
    """
    names = trained_names(network, wanted)
    for name, parameter in network.named_parameters():
        if name not in names:
            parameter.requires_grad = False


def _biases_and_norms(network: UNet) -> Iterator[Tensor]:
    for module in network.modules():
        if isinstance(module, NORMS):
            yield from module.parameters(recurse=False)
        elif isinstance(module, (*CONVOLUTIONS, nn.Linear)) and module.bias is not None:
            yield module.bias
    yield from network.heads.parameters()
