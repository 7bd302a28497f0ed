"""From an architecture's name to its builder: the one place that knows them all."""

from torch import nn

from common.config import ArchitectureName
from common.errors import ConfigError
from common.networks import from_monai, residual, slices
from common.networks.blueprint import Architecture, Blueprint, defects
from common.networks.unet import unet

ARCHITECTURES: dict[ArchitectureName, Architecture] = {
    "unet": Architecture(unet, deep_supervision=True),
    "resunet": Architecture(residual.resunet, deep_supervision=True),
    "preact-resunet": Architecture(residual.preact_resunet, deep_supervision=True),
    "resenc-unet": Architecture(residual.resenc_unet, deep_supervision=True),
    "unet2d": Architecture(slices.unet2d, slices.DIVISOR, n_axes=(2,)),
    "resunet2d": Architecture(slices.resunet2d, slices.DIVISOR, n_axes=(2,)),
    "denseunet2d": Architecture(slices.denseunet2d, slices.DIVISOR, n_axes=(2,)),
    "swin-unetr": Architecture(from_monai.swin_unetr, 32),
    "segresnet": Architecture(from_monai.segresnet, 8),
    "segresnet-vae": Architecture(from_monai.segresnet_vae, 16),
    "attention-unet": Architecture(from_monai.attention_unet),
    "unetr": Architecture(from_monai.unetr, 16),
    "unet++": Architecture(from_monai.unet_plus_plus, 16),
    "vnet": Architecture(from_monai.vnet, 16),
}
"""The name stands in `common.config.ArchitectureName` too, so that a file is checked without
importing torch."""


def build(name: ArchitectureName, wanted: Blueprint) -> nn.Module:
    """Build an architecture.

    Raises:
        ConfigError: with every reason why it cannot do what is asked.
    """
    architecture = ARCHITECTURES[name]
    if found := defects(name, architecture, wanted):
        raise ConfigError("\n".join(found))
    return architecture.build(wanted)
