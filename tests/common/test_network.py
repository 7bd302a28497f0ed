"""The U-Net has the published size and shapes, and starts from seeded weights."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from common.config import Model, Norm, Output
from common.network import (
    UNet,
    build_network,
    initial_weights,
    load_weights,
    n_outputs,
    weights_of,
)
from common.networks.layers import InstanceNorm, Layers
from common.planning.plan import Configuration
from common.task import load_task


def configuration(
    strides: tuple[tuple[int, int, int], ...],
    kernels: tuple[tuple[int, int, int], ...],
    features: tuple[int, ...],
) -> Configuration:
    return Configuration(
        spacing_mm=(1.0, 1.0, 1.0),
        median_shape=(138.0, 169.0, 138.0),
        patch_size=(128, 128, 128),
        batch_size=2,
        strides=strides,
        kernel_sizes=kernels,
        features_per_stage=features,
        batch_dice=False,
        deep_supervision_weights=(1.0,),
    )


# nnU-Net's plan for BraTS (task 1): five poolings of all axes, 32 features doubling up to 320.
BRATS = configuration(((2, 2, 2),) * 5, ((3, 3, 3),) * 6, (32, 64, 128, 256, 320, 320))
# Thick slices: the first two poolings are of the plane only.
THICK = configuration(
    ((1, 2, 2), (1, 2, 2), (2, 2, 2)),
    ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
    (4, 8, 16, 16),
)
FLAT = configuration((), ((3, 3, 3),), (4,))  # of images below 8 voxels: nothing is halved
SMALL = configuration(((2, 2, 2), (2, 2, 2)), ((3, 3, 3),) * 3, (4, 8, 16))


def model(norm: Norm = "instance", output: Output = "regions", *, deep: bool = True) -> Model:
    return Model(
        configuration="3d_fullres",
        norm=norm,
        batch_norm="local-statistics",
        output=output,
        base_features=32,
        deep_supervision=deep,
    )


def network(
    plan: Configuration = SMALL, norm: Norm = "instance", output: Output = "regions"
) -> UNet:
    return cast("UNet", build_network(load_task("brats-2021"), plan, model(norm, output)))


def n_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("output", "expected"), [("regions", 31_198_991), ("labels", 31_199_796)])
def test_the_network_of_the_published_brats_plan_has_its_size(
    output: Output, expected: int
) -> None:
    # Weights of convolutions, stage by stage (27 = 3x3x3 kernel):
    #   down   27 * (4*32 + 32*32 + 32*64 + 64*64 + 64*128 + 128*128
    #                + 128*256 + 256*256 + 256*320 + 320*320 + 2*320*320)    = 14,020,992
    #   up      8 * (320*320 + 320*256 + 256*128 + 128*64 + 64*32)            =  1,818,624
    #   merge  27 * 3 * (320*320 + 256*256 + 128*128 + 64*64 + 32*32)         = 15,344,640
    # together 31,184,256.
    # MONAI's DynUNet counts 31,185,708: the same sum and 3 * (32 + 64 + 128 + 256 + 4) = 1,452
    # of four heads; its other convolutions have no bias, its norms no scale and shift, and its
    # coarsest decoder stage no head. Here there are also, as in nnU-Net v2,
    #   scale and shift   2 * 2 * (1120 down + 800 up)                        =      7,680
    #   biases            2 * (1120 + 800) + 800 of the transposed            =      4,640
    #   five heads        outputs * (320 + 256 + 128 + 64 + 32 + 5)   = outputs * 805
    # 31,184,256 + 7,680 + 4,640 = 31,196,576, with 3 heads' outputs + 2,415, with 4 + 3,220.
    with torch.device("meta"):  # counts without memory
        assert n_parameters(network(BRATS, "instance", output)) == expected


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_every_norm_has_the_same_number_of_parameters(norm: Norm) -> None:
    with torch.device("meta"):
        assert n_parameters(network(BRATS, norm)) == 31_198_991


def test_outputs_are_regions_or_background_and_labels() -> None:
    assert n_outputs(load_task("brats-2021"), model(output="regions")) == 3
    assert n_outputs(load_task("brats-2021"), model(output="labels")) == 4
    assert n_outputs(load_task("hippocampus"), model(output="labels")) == 3


def shapes(network: nn.Module, *patch: int) -> list[tuple[int, ...]]:
    return [tuple(stage.shape) for stage in network(torch.zeros(2, 4, *patch))]


def test_training_gives_logits_of_every_decoder_stage_finest_first() -> None:
    assert shapes(network().train(), 8, 12, 16) == [(2, 3, 8, 12, 16), (2, 3, 4, 6, 8)]


def test_evaluation_gives_the_finest_logits_only() -> None:
    assert shapes(network().eval(), 8, 12, 16) == [(2, 3, 8, 12, 16)]


def test_without_deep_supervision_training_gives_the_finest_logits_only() -> None:
    built = build_network(load_task("brats-2021"), SMALL, model(deep=False))
    assert shapes(built.train(), 8, 8, 8) == [(2, 3, 8, 8, 8)]
    heads = [name for name in weights_of(built) if name.startswith("heads.")]
    assert heads == ["heads.0.weight", "heads.0.bias"]  # no other would ever learn


def test_thick_slices_are_pooled_as_the_plan_says() -> None:
    assert shapes(network(THICK).train(), 4, 16, 24) == [
        (2, 3, 4, 16, 24),
        (2, 3, 4, 8, 12),
        (2, 3, 4, 4, 6),
    ]


def test_kernels_and_strides_are_those_of_the_plan() -> None:
    built = network(THICK)
    first = [cast("nn.Conv3d", cast("nn.Sequential", stage)[0]) for stage in built.encoder]
    assert [conv.kernel_size for conv in first] == [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)]
    assert [conv.stride for conv in first] == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)]
    up = [cast("nn.ConvTranspose3d", layer) for layer in built.up]
    assert [(layer.kernel_size, layer.stride) for layer in up] == [
        ((2, 2, 2), (2, 2, 2)),
        ((1, 2, 2), (1, 2, 2)),
        ((1, 2, 2), (1, 2, 2)),
    ]
    merged = [cast("nn.Conv3d", cast("nn.Sequential", stage)[0]) for stage in built.decoder]
    assert [conv.kernel_size for conv in merged] == [(3, 3, 3), (1, 3, 3), (1, 3, 3)]
    assert [conv.in_channels for conv in merged] == [32, 16, 8]


def test_the_norm_is_the_one_asked_for() -> None:
    assert isinstance(Layers(3, "instance").norm(32), InstanceNorm)
    assert isinstance(Layers(3, "batch").norm(32), nn.BatchNorm3d)
    assert isinstance(Layers(2, "batch").norm(32), nn.BatchNorm2d)
    group = Layers(3, "group").norm(12)
    assert isinstance(group, nn.GroupNorm)
    assert group.num_groups == 4  # the largest divisor of 12 and 8


def test_an_instance_norm_has_scale_and_shift_but_no_statistics() -> None:
    names = {name.rpartition(".")[2] for name in network().state_dict()}
    assert names == {"weight", "bias"}


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    first, again, other = (initial_weights(network(), seed) for seed in (5, 5, 6))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    drawn = [name for name in first if first[name].ndim == 5]
    assert not any(np.array_equal(first[name], other[name]) for name in drawn)


def test_initial_weights_ignore_how_torch_filled_the_network() -> None:
    torch.manual_seed(1)
    one = initial_weights(network(), 5)
    torch.manual_seed(2)
    assert all(
        w.tobytes() == one[name].tobytes() for name, w in initial_weights(network(), 5).items()
    )


def test_weights_are_drawn_with_the_deviation_of_he() -> None:
    plan = configuration(((2, 2, 2),), ((3, 3, 3),) * 2, (32, 64))
    weights = initial_weights(network(plan), 3)
    # sqrt(2 / (1 + 0.01**2) / fan_in), fan_in = kernel voxels * input channels; as torch counts
    # it, a transposed convolution has 8 * 32 of its *output* channels.
    expected = {
        "encoder.0.0.weight": 0.136076,  # 27 * 4 = 108
        "encoder.0.3.weight": 0.048110,  # 27 * 32 = 864
        "encoder.1.3.weight": 0.034019,  # 27 * 64 = 1728
        "up.0.weight": 0.088384,  # 8 * 32 = 256
    }
    for name, deviation in expected.items():
        bound = 4 / math.sqrt(2 * weights[name].size)  # four standard errors
        assert weights[name].std() == pytest.approx(deviation, rel=bound)
        assert abs(weights[name].mean()) < 4 * deviation / math.sqrt(weights[name].size)


def test_the_first_weight_is_the_same_on_every_machine() -> None:
    # numpy's PCG64 with seed 0 draws 0.12573022 first; its deviation is 0.136076.
    first = initial_weights(network(), 0)["encoder.0.0.weight"].flat[0]
    assert first == pytest.approx(0.0171089, abs=1e-7)


def test_biases_start_at_zero_and_scales_at_one() -> None:
    for norm in ("instance", "batch", "group"):
        for name, tensor in initial_weights(network(norm=norm), 1).items():
            if name.endswith("bias"):
                assert not tensor.any(), name
            elif tensor.ndim == 1 and name.endswith("weight"):
                assert (tensor == 1).all(), name


def test_weights_survive_the_way_through_a_network() -> None:
    built, weights = network(norm="batch"), initial_weights(network(norm="batch"), 9)
    load_weights(built, weights)
    again = weights_of(built)
    assert again.keys() == weights.keys()
    assert all(again[name].tobytes() == weights[name].tobytes() for name in weights)


def test_taken_weights_do_not_change_with_the_network() -> None:
    built = network()
    taken = weights_of(built)
    before = taken["heads.0.bias"].copy()
    with torch.no_grad():
        built.heads[0].bias += 1  # type: ignore[operator]
    assert np.array_equal(taken["heads.0.bias"], before)


def test_absent_names_keep_their_value_and_unknown_ones_are_refused() -> None:
    built = network()
    before = weights_of(built)
    load_weights(built, {"heads.0.bias": np.full(3, 7, np.float32)})
    after = weights_of(built)
    assert after.pop("heads.0.bias").tolist() == [7, 7, 7]
    assert all(after[name].tobytes() == before[name].tobytes() for name in after)
    with pytest.raises(KeyError, match=r"heads\.9\.bias"):
        load_weights(built, {"heads.9.bias": np.zeros(3, np.float32)})


def test_a_plan_without_downsampling_still_gives_logits() -> None:
    assert shapes(network(FLAT).eval(), 6, 6, 6) == [(2, 3, 6, 6, 6)]


@pytest.mark.parametrize("deep", [True, False])
def test_a_plan_without_downsampling_has_one_stage_in_training_too(deep: bool) -> None:
    built = build_network(load_task("brats-2021"), FLAT, model(output="labels", deep=deep))
    assert shapes(built.train(), 5, 6, 7) == [(2, 4, 5, 6, 7)]


def test_a_network_without_downsampling_is_two_convolutions_and_a_head() -> None:
    # 27 * (4*4 + 4*4) + 2 * 4 biases + 2 * 2*4 scale and shift, 3 * 4 + 3 of the head
    assert n_parameters(network(FLAT)) == 864 + 8 + 16 + 15
    assert [name for name in weights_of(network(FLAT)) if name.startswith("heads.")] == [
        "heads.0.weight",
        "heads.0.bias",
    ]


def test_every_weight_of_a_network_without_downsampling_learns() -> None:
    built = network(FLAT).train()
    load_weights(built, initial_weights(built, 1))
    image = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 4, 6, 6, 6)))
    (logits,) = built(image.float())
    logits.square().sum().backward()
    assert [name for name, weight in built.named_parameters() if weight.grad is None] == []
