"""The layers are those of torch, also where they are written otherwise for the compiler."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from common.networks.layers import Convolution3d, InstanceNorm, Layers


def pair(n_axes: int) -> tuple[nn.Module, nn.Module]:
    """Return our instance norm and torch's, with equal scale and shift."""
    torch.manual_seed(3)
    theirs = nn.InstanceNorm2d(5, affine=True) if n_axes == 2 else nn.InstanceNorm3d(5, affine=True)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours = InstanceNorm(5)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def answers(layer: nn.Module, image: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of input, scale and shift."""
    given = image.clone().requires_grad_()
    found = layer(given)
    (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
    grads = [given.grad, *(parameter.grad for parameter in layer.parameters())]
    return [found.detach(), *(grad for grad in grads if grad is not None)]


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_instance_norm_is_that_of_torch(
    n_axes: int, compiling: bool, dtype: torch.dtype, tolerance: float
) -> None:
    ours, theirs = (layer.to(dtype) for layer in pair(n_axes))
    image = 3 + 2 * torch.randn(2, 5, *(6, 7, 8)[:n_axes], dtype=dtype)
    # The branch of the compiler is entered without compiling, which takes a minute.
    with patch("torch.compiler.is_compiling", return_value=compiling):
        found = answers(ours, image)
    expected = answers(theirs, image)
    assert len(found) == len(expected) == 4
    n_compared = 1 if dtype == torch.float32 else 4  # gradients are sums, which float32 rounds
    for mine, other in zip(found[:n_compared], expected[:n_compared], strict=True):
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def test_a_compiler_meets_no_obstacle_in_an_instance_norm() -> None:
    ours, theirs = pair(3)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    image = torch.randn(2, 5, 4, 4, 4)
    torch.testing.assert_close(compiled(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_instance_norm_keeps_the_precision_of_its_input() -> None:
    image = torch.randn(2, 5, 4, 4, 4, dtype=torch.bfloat16)
    assert InstanceNorm(5)(image).dtype == torch.bfloat16


@pytest.mark.parametrize("n_axes", [2, 3])
def test_a_convolution_keeps_the_shape_and_a_stride_divides_it(n_axes: int) -> None:
    layers, shape = Layers(n_axes, "instance"), (4, 6, 8)[:n_axes]
    image = torch.zeros(1, 2, *shape)
    assert layers.convolution(2, 3, 3)(image).shape == (1, 3, *shape)
    halved = layers.convolution(2, 3, 3, 2)(image)
    assert halved.shape == (1, 3, *(2, 3, 4)[:n_axes])
    assert layers.up(3, 2, (2,) * n_axes)(halved).shape == image.shape


def with_gradients(layer: nn.Module, image: Tensor, weight: Tensor, *, dtype: torch.dtype):
    """Return the output and the gradients of image, kernel and bias."""
    given = image.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        found = layer(given)
    found.backward(weight.to(found.dtype))
    return [found.detach(), given.grad, *(parameter.grad for parameter in layer.parameters())]


def fill_free_memory(value: float) -> None:
    """Leave a value in the memory that the next tensors get."""
    blocks = [torch.full((size,), value) for size in (1_000, 100_000, 1_000_000, 5_000_000)]
    del blocks


@pytest.mark.parametrize(
    ("kernel", "depth"), [(3, 1), (3, 2), (3, 3), (3, 4), (5, 2), (5, 3), (5, 4), (5, 5)]
)
@pytest.mark.parametrize("size", [2, 4, 8])
def test_gradients_in_bfloat16_are_right_for_any_depth(kernel: int, depth: int, size: int) -> None:
    torch.manual_seed(depth)
    layer = Convolution3d(16, 24, kernel, padding=kernel // 2)
    image = torch.randn(2, 16, depth, size, size)
    weight = torch.randn(2, 24, depth, size, size)
    exact = with_gradients(layer, image, weight, dtype=torch.float32)
    layer.to(memory_format=torch.channels_last_3d)
    image = image.to(memory_format=torch.channels_last_3d)
    for _ in range(4):  # what torch got wrong depended on what was in memory before
        fill_free_memory(1e30)
        rounded = with_gradients(layer, image, weight, dtype=torch.bfloat16)
        for mine, wanted in zip(rounded, exact, strict=True):
            torch.testing.assert_close(
                mine.float(), wanted, rtol=0, atol=0.02 * float(wanted.abs().max())
            )


def test_a_convolution_is_torch_s_of_any_depth() -> None:
    torch.manual_seed(1)
    theirs = nn.Conv3d(4, 6, 3, (1, 2, 2), 1)
    ours = Convolution3d(4, 6, 3, (1, 2, 2), 1)
    ours.load_state_dict(theirs.state_dict())
    for depth in (1, 2, 3, 6):
        image = torch.randn(2, 4, depth, 6, 8)
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-5, atol=1e-6)
