"""Opacus's gradients of every sample equal those of one sample at a time, layer by layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from client.privacy.per_sample import PerSample
from common.config import Model
from common.network import build_network, initial_weights, load_weights
from common.networks.layers import Convolution3d, InstanceNorm
from common.planning.plan import AnyConfiguration, Configuration, Configuration2d
from common.task import Task

Loss = Callable[[nn.Module, Tensor], Tensor]
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv 2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 7, 6)),
    "conv 2d strided": (lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), padding=1), (4, 8, 6)),
    "conv 3d": (lambda: Convolution3d(4, 6, (3, 3, 1), padding=(1, 1, 0)), (4, 5, 6, 4)),
    "conv 3d of torch": (lambda: nn.Conv3d(4, 6, 3, padding=1, bias=False), (4, 5, 6, 4)),
    "conv 3d strided": (lambda: Convolution3d(4, 6, 3, stride=(1, 2, 2), padding=1), (4, 4, 6, 4)),
    "conv 3d of flat images": (lambda: Convolution3d(4, 6, 3, padding=1), (4, 2, 6, 4)),
    "conv 3d in groups": (lambda: nn.Conv3d(4, 6, 3, padding=1, groups=2), (4, 4, 6, 4)),
    "head": (lambda: Convolution3d(4, 3, 1), (4, 3, 4, 5)),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, 2, 2), (4, 3, 4)),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 6, (1, 2, 2), (1, 2, 2)), (4, 3, 4, 2)),
    "instance norm 2d": (lambda: InstanceNorm(4), (4, 6, 5)),
    "instance norm 3d": (lambda: InstanceNorm(4), (4, 3, 6, 5)),
    "group norm 2d": (lambda: nn.GroupNorm(2, 4), (4, 6, 5)),
    "group norm 3d": (lambda: nn.GroupNorm(2, 4), (4, 3, 6, 5)),
    "after leaky ReLU": (
        lambda: nn.Sequential(
            Convolution3d(4, 4, 3, padding=1),
            InstanceNorm(4),
            nn.LeakyReLU(0.01, inplace=True),
            Convolution3d(4, 2, 1),
        ),
        (4, 4, 5, 4),
    ),
}
FAMILIES = [
    ("unet", "instance", 3),
    ("unet", "group", 3),
    ("unet", "instance", 2),
    ("resunet", "instance", 3),
    ("preact-resunet", "group", 3),
    ("resenc-unet", "instance", 3),
]
TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)


def of_slices(plan: AnyConfiguration) -> Configuration2d:
    return Configuration2d(
        spacing_mm=(1.0,) * 2,
        median_shape=(16.0,) * 2,
        patch_size=plan.patch_size[1:],
        batch_size=2,
        strides=tuple(stride[1:] for stride in plan.strides),
        kernel_sizes=tuple(kernel[1:] for kernel in plan.kernel_sizes),
        features_per_stage=plan.features_per_stage,
        batch_dice=False,
        deep_supervision_weights=plan.deep_supervision_weights,
    )


def gradients_of(network: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]


def one_at_a_time(network: nn.Module, images: Tensor, loss: Loss) -> list[list[Tensor]]:
    found = []
    for image in images:
        network.zero_grad(set_to_none=True)
        loss(network, image[None]).backward()
        found.append(gradients_of(network))
    network.zero_grad(set_to_none=True)
    return found


def together(network: nn.Module, images: Tensor, loss: Loss) -> list[list[Tensor]]:
    engine = PerSample(network)
    found = engine.gradients(lambda: loss(network, images))
    engine.close()
    parameters = list(network.parameters())
    return [
        [
            torch.zeros_like(p) if g is None else g[sample]
            for p, g in zip(parameters, found, strict=True)
        ]
        for sample in range(len(images))
    ]


def require_equal(found: list[list[Tensor]], expected: list[list[Tensor]], bound: float) -> None:
    """Demand that every sample's gradient is within a bound, relative to its tensor's norm."""
    for mine, its in zip(found, expected, strict=True):
        for a, b in zip(mine, its, strict=True):
            assert a.shape == b.shape
            assert (a - b).norm() <= bound * b.norm() + 1e-12


def weighted(network: nn.Module, images: Tensor) -> Tensor:
    """Return a loss to which every value counts differently."""
    image = network(images)
    weights = torch.linspace(-1, 1, image[0].numel(), dtype=image.dtype).view(image[0].shape)
    return (weights * image.square()).sum() + (0.1 * weights * image).sum()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_the_gradients_of_its_samples(name: str) -> None:
    build, shape = LAYERS[name]
    torch.manual_seed(2)
    layer, images = build().double(), torch.randn(3, *shape, dtype=torch.float64)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    expected = one_at_a_time(layer, images, weighted)
    require_equal(together(layer, images, weighted), expected, 1e-4)


def test_frozen_weights_have_none_and_the_others_are_the_same() -> None:
    torch.manual_seed(2)
    network, images = LAYERS["after leaky ReLU"][0]().double(), torch.randn(3, 4, 4, 5, 4).double()
    network[0].weight.requires_grad_(False)  # type: ignore[index,union-attr,operator]
    engine = PerSample(network)
    found = engine.gradients(lambda: weighted(network, images))
    engine.close()
    assert [gradient is None for gradient in found] == [True, *[False] * 5]
    expected = one_at_a_time(network, images, weighted)
    mine = [[g[sample] for g in found if g is not None] for sample in range(3)]
    require_equal(mine, [tensors[1:] for tensors in expected], 1e-4)


def test_bfloat16_gradients_of_images_flatter_than_the_kernel_are_right() -> None:
    torch.manual_seed(4)
    layer, images = Convolution3d(32, 32, 3, padding=1), torch.randn(2, 32, 2, 2, 2)

    def loss(network: nn.Module, batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return weighted(network, batch)

    expected = one_at_a_time(layer, images, weighted)
    require_equal(together(layer, images, loss), expected, 2e-2)


def all_stages(network: nn.Module, images: Tensor) -> Tensor:
    return sum(  # type: ignore[return-value]
        (stage[:, :1].sigmoid() * (stage - 0.3).square()).sum() / 2**depth
        for depth, stage in enumerate(network(images))
    )


@pytest.mark.parametrize(("architecture", "norm", "n_axes"), FAMILIES)
def test_a_whole_network_has_the_gradients_of_its_samples(
    architecture: str, norm: str, n_axes: int
) -> None:
    size = (16,) * n_axes
    plan: AnyConfiguration = Configuration(
        spacing_mm=(1.0,) * 3,
        median_shape=(16.0,) * 3,
        patch_size=(16,) * 3,
        batch_size=2,
        strides=((2,) * 3, (1, 2, 2)),
        kernel_sizes=((3,) * 3, (3,) * 3, (3,) * 3),
        features_per_stage=(4, 8, 8),
        batch_dice=False,
        deep_supervision_weights=(1.0, 0.5),
    )
    if n_axes == 2:
        plan = of_slices(plan)
    model = Model(
        configuration="3d_fullres" if n_axes == 3 else "2d",
        norm=norm,  # type: ignore[arg-type]
        batch_norm="local-statistics",
        output="labels",
        base_features=4,
        deep_supervision=True,
        architecture=architecture,  # type: ignore[arg-type]
    )
    network = build_network(TASK, plan, model)
    load_weights(network, initial_weights(network, 1))
    network = network.double().train()  # float32 differs by which side of 0 a sum falls on
    torch.manual_seed(3)
    images = torch.randn(3, 1, *size, dtype=torch.float64)
    expected = one_at_a_time(network, images, all_stages)
    require_equal(together(network, images, all_stages), expected, 1e-4)
    # and once more: nothing of the first pass is left
    require_equal(together(network, images[1:], all_stages), expected[1:], 1e-4)
