"""Optimisers and the learning rate over a run, by their published numbers."""

import pytest
import torch
from torch import nn

from client.training.optimise import Pace, build_optimizer, clip, set_rate
from common.augmentation import Augmentation
from common.config import Training
from common.schedules import Cosine, Poly


def training(optimizer: str = "sgd", momentum: float = 0.9) -> Training:
    return Training(
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.05,
        momentum=momentum,
        weight_decay=3e-5,
        schedule=Poly(power=0.9),
        gradient_clip_norm=12.0,
        augmentation=Augmentation(preset="none"),
        validation_fraction=0,
    )


def test_sgd_is_with_nesterov_momentum_and_weight_decay() -> None:
    network = nn.Linear(3, 2)
    optimizer = build_optimizer(network, training())
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 3e-5)
    assert len(group["params"]) == 2


def test_sgd_without_momentum_is_plain() -> None:
    (group,) = build_optimizer(nn.Linear(3, 2), training(momentum=0.0)).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.0, False)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_adam_takes_the_momentum_as_its_first_beta(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    optimizer = build_optimizer(nn.Linear(3, 2), training(name, momentum=0.8))
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)


def stepped(optimizer: str) -> list[float]:
    """Return a weight of 1 after one step of rate 0.1 along a gradient of 0.5."""
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(1.0)
    chosen = build_optimizer(network, training(optimizer))
    set_rate(chosen, 0.1)
    network.weight.grad = torch.full((1, 1), 0.5)
    chosen.step()
    return [network.weight.item()]


@pytest.mark.parametrize(
    ("optimizer", "weight"),
    [
        # 1 - 0.1 * (g + 0.9 g), with g = 0.5 + 3e-5
        ("sgd", 0.9049943),
        # Adam: 1 - 0.1 * g / |g|; AdamW: 1 - 0.1 * 3e-5 first
        ("adam", 0.9),
        ("adamw", 0.899997),
    ],
)
def test_a_first_step(optimizer: str, weight: float) -> None:
    assert stepped(optimizer) == pytest.approx([weight], abs=2e-7)


def test_gradients_above_the_norm_are_scaled_and_others_stay() -> None:
    network = nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    clip(network, 12.0)
    assert network.weight.grad.tolist() == [[3.0, 4.0]]
    clip(network, 1.0)
    assert network.weight.grad.flatten().tolist() == pytest.approx([0.6, 0.8], abs=1e-6)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.01), (100, 0.009095), (500, 0.005359), (900, 0.001259)]
)
def test_the_learning_rate_falls_as_published(epoch: int, rate: float) -> None:
    poly = Pace(Poly(power=0.9), learning_rate=0.01, first_step=0, total_steps=1000)
    assert poly.rate(epoch) == pytest.approx(rate, abs=5e-7)


def test_the_schedule_runs_over_the_steps_of_all_rounds() -> None:
    third = Pace(Poly(power=0.9), learning_rate=0.01, first_step=200, total_steps=1000)
    assert third.rate(300) == pytest.approx(0.005359, abs=5e-7)


def test_power_zero_keeps_the_rate() -> None:
    constant = Pace(Poly(power=0.0), learning_rate=0.01, first_step=0, total_steps=10)
    assert [constant.rate(step) for step in (0, 5, 9)] == [0.01, 0.01, 0.01]


def test_swin_unetrs_rate_rises_to_its_top_and_falls_to_nothing() -> None:
    cosine = Pace(Cosine(warmup=0.1), learning_rate=8e-4, first_step=0, total_steps=1000)
    rates = [cosine.rate(step) for step in (0, 50, 100, 550, 1000)]
    assert rates == pytest.approx([0, 4e-4, 8e-4, 4e-4, 0], abs=1e-12)
