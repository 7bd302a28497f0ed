"""MONAI's networks, with this project's norms; the one file that imports MONAI.

Sources: Swin UNETR (Hatamizadeh et al. 2022), SegResNet and its autoencoder (Myronenko 2018),
Attention U-Net (Oktay et al. 2018), UNETR (Hatamizadeh et al. 2022), UNet++ (Zhou et al. 2018),
V-Net (Milletari et al. 2016). The import takes seconds, so only a builder pays for it.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from common.errors import ConfigError
from common.networks.blueprint import Blueprint, demand_base_features
from common.networks.layers import Convolution3d, Layers

AUTOENCODER_WEIGHT = 0.1  # Myronenko 2018: of the reconstruction's error and of the divergence
VNET_FEATURES = 16  # Milletari et al. 2016; MONAI has no other
TRANSFORMER_WIDTH = 48  # UNETR: 768 = 48 * 16 features; a narrower network narrows both


class SingleOutput(nn.Module):
    """A network that gives logits at full resolution only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return one tensor of logits for an image (batch, channel, [z,] y, x)."""
        logits = self.network(image)
        return logits if isinstance(logits, list) else [logits]


class WithAutoencoder(nn.Module):
    """SegResNet beside a decoder that reconstructs the image, in training only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.extra_loss: Tensor | None = None
        """Of the last forward pass; see `common.network.extra_loss`."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return one tensor of logits; in training mode, also set the extra loss."""
        logits, loss = self.network(image)
        self.extra_loss = None if loss is None else AUTOENCODER_WEIGHT * loss
        return [logits]


def swin_unetr(wanted: Blueprint) -> nn.Module:
    """Build Swin UNETR; published with 48 features."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    demand_base_features("swin-unetr", wanted, (12, 24, 36, 48, 60))  # 3 heads, 2 merges of 2
    features = wanted.base_features
    network = SwinUNETR(**_sizes(wanted), feature_size=features, norm_name="batch")
    return _wrapped(wanted, network)


def segresnet(wanted: Blueprint) -> nn.Module:
    """Build SegResNet; published with 32 features, MONAI's own default is 8."""
    from monai.networks.nets.segresnet import SegResNet

    features = wanted.base_features
    return _wrapped(wanted, SegResNet(**_sizes(wanted), init_filters=features, norm=("batch", {})))


def segresnet_vae(wanted: Blueprint) -> nn.Module:
    """Build SegResNet with its variational autoencoder, which learns mean and deviation."""
    from monai.networks.nets.segresnet import SegResNetVAE

    network = SegResNetVAE(
        wanted.plan.patch_size,
        **_sizes(wanted),
        init_filters=wanted.base_features,
        norm=("batch", {}),
        vae_estimate_std=True,  # the paper; MONAI's default leaves a layer without any gradient
    )
    return WithAutoencoder(_with_our_layers(network, wanted))


def attention_unet(wanted: Blueprint) -> nn.Module:
    """Build Attention U-Net in the plan's topology."""
    from monai.networks.nets.attentionunet import AttentionUnet

    plan = wanted.plan
    if not plan.strides:
        raise ConfigError("model.architecture: attention-unet needs a plan with downsampling")
    steps: Any = plan.strides  # MONAI's hints know no step per axis; its layers do
    network = AttentionUnet(**_sizes(wanted), channels=plan.features_per_stage, strides=steps)
    return _wrapped(wanted, network)


def unetr(wanted: Blueprint) -> nn.Module:
    """Build UNETR; published with 16 features. It predicts in the size of its patch only."""
    from monai.networks.nets.unetr import UNETR

    hidden = TRANSFORMER_WIDTH * wanted.base_features
    network = UNETR(
        **_sizes(wanted),
        img_size=wanted.plan.patch_size,
        feature_size=wanted.base_features,
        hidden_size=hidden,
        mlp_dim=4 * hidden,
        norm_name="batch",
    )
    for block in network.vit.blocks:
        block.norm_cross_attn = nn.Identity()  # MONAI builds it for a use that is not this one
    return _wrapped(wanted, network)


def unet_plus_plus(wanted: Blueprint) -> nn.Module:
    """Build UNet++ without deep supervision, whose heads would all be at full resolution."""
    from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

    base = wanted.base_features
    features = (base, base, 2 * base, 4 * base, 8 * base, base)  # MONAI's, with 32
    network = BasicUNetPlusPlus(**_sizes(wanted), features=features, norm="batch")
    for head in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
        setattr(network, head, nn.Identity())
    return _wrapped(wanted, network)


def vnet(wanted: Blueprint) -> nn.Module:
    """Build V-Net, with 16 features."""
    from monai.networks.nets.vnet import VNet

    demand_base_features("vnet", wanted, (VNET_FEATURES,))
    if VNET_FEATURES % wanted.n_inputs:
        raise ConfigError(
            f"model.architecture: vnet repeats its input to {VNET_FEATURES} channels; expected a "
            f"task whose number of channels divides {VNET_FEATURES}, found {wanted.n_inputs}"
        )
    return _wrapped(wanted, VNet(**_sizes(wanted), dropout_dim=wanted.n_axes))


def _sizes(wanted: Blueprint) -> dict[str, Any]:
    return {
        "spatial_dims": wanted.n_axes,
        "in_channels": wanted.n_inputs,
        "out_channels": wanted.n_outputs,
    }


def _wrapped(wanted: Blueprint, network: nn.Module) -> nn.Module:
    return SingleOutput(_with_our_layers(network, wanted))


def _with_our_layers(network: nn.Module, wanted: Blueprint) -> nn.Module:
    """Exchange every batch or instance norm, which not all of MONAI's networks let one choose.

    Convolutions become those whose gradients are right (`Convolution3d`).
    """
    layers = Layers(wanted.n_axes, wanted.norm)
    for parent in list(network.modules()):
        if type(parent) is nn.Conv3d:
            parent.__class__ = Convolution3d  # the same tensors, another forward pass
        for name, child in parent.named_children():
            if isinstance(child, _NormBase):
                setattr(parent, name, layers.norm(child.num_features))
    return network
