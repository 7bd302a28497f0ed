"""Precision and memory layout follow from the machine and the configuration."""

import pytest
import torch
from torch import nn

from client.device import Device, choose_device, describe
from common.config import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_a_precision_that_is_asked_for_is_used(precision: Precision, dtype: torch.dtype) -> None:
    assert choose_device(precision).dtype == dtype


def test_without_a_choice_the_machine_decides() -> None:
    chosen = choose_device("auto")
    assert chosen.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert chosen.dtype in {torch.float32, torch.bfloat16, torch.float16}
    if chosen.device.type == "cpu":
        assert chosen.dtype != torch.float16  # its gradients underflow, and it is slow there


def test_float32_computes_without_autocast() -> None:
    with Device(CPU, torch.float32).autocast():
        assert not torch.is_autocast_enabled("cpu")
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_bfloat16_computes_with_autocast() -> None:
    with Device(CPU, torch.bfloat16).autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.float16, True)],
)
def test_only_float16_needs_scaled_gradients(dtype: torch.dtype, *, scales: bool) -> None:
    assert Device(CPU, dtype).gradient_scaler().is_enabled() is scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_placed_channels_last(dtype: torch.dtype) -> None:
    placed = Device(CPU, dtype).place(torch.zeros(2, 3, 4, 5, 6))
    assert placed.is_contiguous(memory_format=torch.channels_last_3d)


def test_tensors_and_networks_are_placed_in_the_layout() -> None:
    device = Device(CPU, torch.bfloat16)
    placed = device.place(torch.ones(1, 4, 3, 3, 3))
    assert placed.is_contiguous(memory_format=torch.channels_last_3d)
    assert placed.dtype == torch.float32  # autocast chooses per operation
    network = nn.Sequential(nn.Conv3d(4, 8, 3))
    assert device.place_network(network) is network
    weight = network[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_a_device_is_described_in_words() -> None:
    words = describe(Device(CPU, torch.bfloat16))
    assert words.startswith("CPU, ")
    assert words.endswith(" threads, bfloat16")
