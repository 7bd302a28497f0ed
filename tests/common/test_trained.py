"""Which parameters are trained follows from a layer's type, never from a name."""

import pytest
import torch
from torch import nn

from common.config import WITH_HEADS, ArchitectureName
from common.errors import ConfigError
from common.network import UNet
from common.networks.blueprint import Blueprint
from common.networks.table import ARCHITECTURES, build
from common.planning.plan import Configuration, Configuration2d
from common.trained import freeze_others, trained_names

PLAN = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(8.0, 8.0, 8.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    strides=((2, 2, 2),),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    features_per_stage=(4, 4),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)
PUBLISHED = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(138.0, 170.0, 138.0),
    patch_size=(128, 128, 128),
    batch_size=2,
    strides=((2, 2, 2),) * 5,
    kernel_sizes=((3, 3, 3),) * 6,
    features_per_stage=(32, 64, 128, 256, 320, 320),
    batch_dice=False,
    deep_supervision_weights=(1.0,),
)


def n_values(network: nn.Module, names: frozenset[str]) -> int:
    return sum(p.numel() for name, p in network.named_parameters() if name in names)


def test_a_small_network_has_86_values_in_biases_norms_and_head() -> None:
    network = UNet(1, 2, PLAN, "instance", deep_supervision=True)
    assert n_values(network, trained_names(network, "all")) == 2914
    # 6 convolutions and the way up: 7 * 4 biases; 6 norms: 6 * 8; the head: 2 * 4 + 2
    assert n_values(network, trained_names(network, "biases-and-norms")) == 86


def test_the_published_width_leaves_one_of_two_thousand() -> None:
    with torch.device("meta"):
        network = UNet(4, 4, PUBLISHED, "instance", deep_supervision=True)
    assert n_values(network, trained_names(network, "all")) == 31_199_796
    assert n_values(network, trained_names(network, "biases-and-norms")) == 15_540


def test_the_choice_is_by_type() -> None:
    network = UNet(1, 2, PLAN, "instance", deep_supervision=True)
    state = dict(network.named_parameters())
    names = trained_names(network, "biases-and-norms")
    kernels = {name for name, tensor in state.items() if tensor.dim() == 5}
    assert names == (state.keys() - kernels) | {"heads.0.weight"}

    class Disguised(nn.Conv3d):
        """A layer with a further tensor that only sounds like a bias."""

        def __init__(self) -> None:
            super().__init__(4, 4, 1)
            self.norm_bias = nn.Parameter(torch.zeros(4))

    network.encoder.append(Disguised())
    assert trained_names(network, "biases-and-norms") == names | {"encoder.2.bias"}


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_every_norm_is_trained(norm: str) -> None:
    network = UNet(1, 2, PLAN, norm, deep_supervision=True)  # type: ignore[arg-type]
    names = trained_names(network, "biases-and-norms")
    assert {"encoder.0.1.weight", "encoder.0.1.bias"} <= names
    assert n_values(network, names) == 86


def test_what_is_not_trained_gets_no_gradient() -> None:
    network = UNet(1, 2, PLAN, "instance", deep_supervision=True)
    freeze_others(network, "biases-and-norms")
    wanted = {name for name, p in network.named_parameters() if p.requires_grad}
    assert wanted == trained_names(network, "biases-and-norms")
    sum(stage.sum() for stage in network(torch.randn(1, 1, 8, 8, 8))).backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == wanted


def test_all_freezes_nothing() -> None:
    network = nn.Conv3d(1, 1, 1)  # of any type
    freeze_others(network, "all")
    assert all(parameter.requires_grad for parameter in network.parameters())


def blueprint(name: ArchitectureName) -> Blueprint:
    edge, slices = max(8, ARCHITECTURES[name].divisor), 2 in ARCHITECTURES[name].n_axes
    n_axes, kind = (2, Configuration2d) if slices else (3, Configuration)
    plan = kind(
        spacing_mm=(1.0,) * n_axes,  # type: ignore[arg-type]
        median_shape=(100.0,) * n_axes,  # type: ignore[arg-type]
        patch_size=(edge,) * (n_axes - 1) + (2 * edge,),  # type: ignore[arg-type]
        batch_size=2,
        strides=((2,) * n_axes,),  # type: ignore[arg-type]
        kernel_sizes=((3,) * n_axes,) * 2,  # type: ignore[arg-type]
        features_per_stage=(4, 8),
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )
    return Blueprint(n_inputs=2, n_outputs=3, plan=plan, norm="instance", deep_supervision=False)


@pytest.mark.parametrize("name", WITH_HEADS)
def test_the_heads_of_these_architectures_are_told(name: ArchitectureName) -> None:
    network = build(name, blueprint(name))
    trained = trained_names(network, "biases-and-norms")
    assert {name for name, _ in network.named_parameters() if "heads." in name} <= trained
    assert n_values(network, trained) < 0.2 * n_values(network, trained_names(network, "all"))


def test_another_network_is_refused_and_the_answer_names_those_that_work() -> None:
    with pytest.raises(ConfigError, match=r"expected one of unet, resunet, .*found Conv3d"):
        trained_names(nn.Conv3d(1, 1, 1), "biases-and-norms")
