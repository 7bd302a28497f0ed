"""Every architecture of the table: shapes, gradients, weights, sizes, and what it refuses."""

import subprocess
import sys
from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.batchnorm import local_names
from common.config import ArchitectureName, Norm
from common.network import extra_loss, initial_weights, load_all_weights, load_weights, weights_of
from common.networks.blueprint import Blueprint
from common.networks.table import ARCHITECTURES, build
from common.packing import pack, unpack
from common.planning.plan import AnyConfiguration, Configuration, Configuration2d

# The architectures that must be wide, in 2D only: their 3D networks have up to 46 million weights.
WIDE: dict[ArchitectureName, int] = {"swin-unetr": 12, "vnet": 16}
CASES: list[tuple[ArchitectureName, int]] = [
    (name, n_axes)
    for name, architecture in ARCHITECTURES.items()
    for n_axes in architecture.n_axes
    if n_axes == 2 or name not in {*WIDE, "unetr"}
]
every_architecture = pytest.mark.parametrize(("name", "n_axes"), CASES)


def plan(patch: tuple[int, ...], features: tuple[int, ...]) -> AnyConfiguration:
    n_axes, n_steps = len(patch), len(features) - 1
    return (Configuration if n_axes == 3 else Configuration2d)(
        spacing_mm=(1.0,) * n_axes,  # type: ignore[arg-type]
        median_shape=(100.0,) * n_axes,  # type: ignore[arg-type]
        patch_size=patch,  # type: ignore[arg-type]
        batch_size=2,
        strides=((2,) * n_axes,) * n_steps,  # type: ignore[arg-type]
        kernel_sizes=((3,) * n_axes,) * (n_steps + 1),  # type: ignore[arg-type]
        features_per_stage=features,
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )


def patch_of(name: ArchitectureName, n_axes: int) -> tuple[int, ...]:
    edge = max(4, ARCHITECTURES[name].divisor)
    return (edge,) * (n_axes - 1) + (2 * edge,)


def small(name: ArchitectureName, n_axes: int, norm: Norm = "instance") -> nn.Module:
    base = WIDE.get(name, 4)
    return build(
        name,
        Blueprint(
            n_inputs=2,
            n_outputs=3,
            plan=plan(patch_of(name, n_axes), (base, 2 * base, 4 * base)),
            norm=norm,
            deep_supervision=ARCHITECTURES[name].deep_supervision,
        ),
    )


def without_dropout(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Dropout3d):
            module.p = 0.0
    return network


def image_for(name: ArchitectureName, n_axes: int) -> Tensor:
    drawn = np.random.default_rng(1).standard_normal((2, 2, *patch_of(name, n_axes)))
    return torch.from_numpy(drawn.astype(np.float32))


def sized(name: ArchitectureName, patch: tuple[int, ...], *features: int, norm: Norm) -> int:
    channels = 4 if len(patch) == 3 else 1
    deep = ARCHITECTURES[name].deep_supervision
    wanted = Blueprint(channels, 3, plan(patch, features), norm, deep_supervision=deep)
    return sum(parameter.numel() for parameter in build(name, wanted).parameters())


def test_the_table_has_every_name_that_a_configuration_may_have() -> None:
    assert set(ARCHITECTURES) == set(get_args(ArchitectureName))


@every_architecture
def test_training_gives_logits_finest_first(name: ArchitectureName, n_axes: int) -> None:
    torch.manual_seed(0)
    logits = small(name, n_axes).train()(image_for(name, n_axes))
    patch = patch_of(name, n_axes)
    expected = [(2, 3, *patch)]
    if name in {"unet", "resunet", "preact-resunet", "resenc-unet"}:
        expected.append((2, 3, *(edge // 2 for edge in patch)))
    assert [tuple(stage.shape) for stage in logits] == expected


@every_architecture
def test_evaluation_gives_the_finest_logits_only(name: ArchitectureName, n_axes: int) -> None:
    network = small(name, n_axes).eval()
    with torch.inference_mode():
        logits = network(image_for(name, n_axes))
    assert [tuple(stage.shape) for stage in logits] == [(2, 3, *patch_of(name, n_axes))]
    assert extra_loss(network) is None


# The attention gates' biases stand before a norm, which takes them away again: what gradient they
# have is rounding, on some processors none.
BEFORE_A_NORM = ("W_g.0.conv.bias", "W_x.0.conv.bias", "psi.0.conv.bias")


@every_architecture
def test_a_gradient_reaches_every_parameter(name: ArchitectureName, n_axes: int) -> None:
    torch.manual_seed(0)
    network = without_dropout(small(name, n_axes)).train()
    load_weights(network, initial_weights(network, 2))
    with torch.no_grad():  # a residual block whose last scale is 0 hides what lies before it
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    loss = sum(stage.square().mean() for stage in network(image_for(name, n_axes)))
    extra = extra_loss(network)
    (loss if extra is None else loss + extra).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        if not parameter_name.endswith(BEFORE_A_NORM):
            assert parameter.grad.any(), parameter_name


@cache
def drawn(name: ArchitectureName, n_axes: int, seed: int) -> dict[str, np.ndarray]:
    torch.manual_seed(seed + 40)  # what torch fills the network with must not matter
    return initial_weights(small(name, n_axes, "batch"), seed % 10)


@every_architecture
def test_equal_seeds_give_equal_weights_and_others_do_not(
    name: ArchitectureName, n_axes: int
) -> None:
    first, again, other = (drawn(name, n_axes, seed) for seed in (5, 15, 6))
    for tensor in first:
        assert first[tensor].tobytes() == again[tensor].tobytes(), tensor
        differs = first[tensor].ndim > 1 and first[tensor].dtype == np.float32
        assert np.array_equal(first[tensor], other[tensor]) != differs, tensor


@every_architecture
def test_weights_survive_the_way_over_the_wire_and_through_a_network(
    name: ArchitectureName, n_axes: int
) -> None:
    weights, network = drawn(name, n_axes, 5), small(name, n_axes, "batch")
    stay = local_names(network, "local-statistics")
    sent = {tensor: w for tensor, w in weights.items() if tensor not in stay}
    assert {w.dtype.name for w in sent.values()} == {"float32"}
    load_all_weights(network, unpack(pack(sent)), stay)
    again = weights_of(network)
    assert again.keys() == weights.keys()
    for tensor in weights:
        assert again[tensor].tobytes() == weights[tensor].tobytes(), tensor


@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
@every_architecture
def test_the_norm_is_the_one_asked_for(name: ArchitectureName, n_axes: int, norm: Norm) -> None:
    network = small(name, n_axes, norm)
    kinds = {type(module).__name__ for module in network.modules()}
    batch = {f"BatchNorm{n_axes}d"}
    expected = {"instance": {"InstanceNorm"}, "batch": batch, "group": {"GroupNorm"}}[norm]
    found = {kind for kind in kinds if "Norm" in kind} - {"LayerNorm"}  # a transformer's own
    assert found == expected


@pytest.mark.parametrize("name", ["segresnet", "attention-unet", "vnet"])
def test_statistics_of_every_batch_norm_stay(name: ArchitectureName) -> None:
    network = small(name, 2, "batch")
    n_norms = sum(isinstance(module, _BatchNorm) for module in network.modules())
    stay = local_names(network, "local-statistics")
    assert len(stay) == 3 * n_norms > 0
    assert stay <= set(network.state_dict())


@pytest.mark.parametrize(
    ("name", "features", "norm", "expected"),
    [
        # nnunetv2 2.8.1's own, of the same plan: 31,198,991 and 102,353,167
        ("unet", (32, 64, 128, 256, 320, 320), "instance", 31_198_991),
        ("resenc-unet", (32, 64, 128, 256, 320, 320), "instance", 102_353_167),
        # KiTS 2019: 24 features, 21 blocks; no number was published
        ("resunet", (24, 48, 96, 192, 320, 320), "instance", 78_705_343),
        ("preact-resunet", (24, 48, 96, 192, 320, 320), "instance", 78_704_111),
        # Published as 61.98 M: 62,003,523 without the 197,730 relative positions. MONAI counts
        # 62,191,941, without scale and shift of 9,312 in its instance norms.
        ("swin-unetr", (48,), "instance", 62_201_253),
        # MONAI 1.6: 18,798,627 with 32 filters
        ("segresnet", (32,), "group", 18_798_627),
        ("segresnet-vae", (32,), "group", 25_214_743),
        # MONAI 5,910,443: and scale and shift of 480 in the norms that merge
        ("attention-unet", (16, 32, 64, 128, 256), "batch", 5_910_923),
        # MONAI 102,468,147: less 18,432 of a norm without use, and scale and shift of 2,048
        ("unetr", (16,), "instance", 102_451_763),
        ("unet++", (32,), "batch", 6_982_403),  # MONAI 6,982,700: less three heads of 99
        ("vnet", (16,), "batch", 45_607_906),  # MONAI's own
    ],
)
def test_volumes_have_networks_of_the_published_size(
    name: ArchitectureName, features: tuple[int, ...], norm: Norm, expected: int
) -> None:
    found = sized(name, (128, 128, 128), *features, norm=norm)
    assert found == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("unet2d", 7_763_555), ("resunet2d", 8_113_219), ("denseunet2d", 12_119_395)],
)
def test_slices_have_networks_of_five_levels(name: ArchitectureName, expected: int) -> None:
    assert sized(name, (128, 128), 32, norm="batch") == expected


def test_linear_layers_and_tables_start_small() -> None:
    weights = drawn("swin-unetr", 2, 5)
    for name in ("attn.qkv.weight", "attn.relative_position_bias_table"):
        tensor = weights[f"network.swinViT.layers4.0.blocks.0.{name}"]
        bound = 4 / np.sqrt(2 * tensor.size)  # four standard errors
        assert tensor.std() == pytest.approx(0.02, rel=bound)


def test_a_block_of_nnunet_starts_as_the_way_around_it() -> None:
    weights = drawn("resenc-unet", 3, 5)
    assert not weights["encoder.1.0.trunk.4.weight"].any()
    assert not weights["encoder.1.0.trunk.4.bias"].any()
    assert (weights["encoder.1.0.trunk.1.weight"] == 1).all()


def test_the_autoencoder_adds_to_the_loss_in_training_only() -> None:
    torch.manual_seed(0)
    network = small("segresnet-vae", 3)
    network.train()(image_for("segresnet-vae", 3))
    extra = extra_loss(network)
    assert extra is not None
    assert extra.ndim == 0
    assert extra.item() > 0
    network.eval()(image_for("segresnet-vae", 3))
    assert extra_loss(network) is None


def test_attention_follows_the_strides_of_thick_slices() -> None:
    thick = Configuration(
        spacing_mm=(5.0, 1.0, 1.0),
        median_shape=(4.0, 16.0, 24.0),
        patch_size=(4, 16, 24),
        batch_size=2,
        strides=((1, 2, 2), (2, 2, 2)),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        features_per_stage=(4, 8, 16),
        batch_dice=False,
        deep_supervision_weights=(1.0, 0.0),
    )
    network = build("attention-unet", Blueprint(1, 2, thick, "group", deep_supervision=False))
    assert [tuple(stage.shape) for stage in network(torch.zeros(1, 1, 4, 16, 24))] == [
        (1, 2, 4, 16, 24)
    ]


def test_only_a_network_of_monai_imports_monai() -> None:
    program = "import sys, common.network; sys.exit('monai' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
