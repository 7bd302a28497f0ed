"""The training loop of a round: reproducible, proximal where asked, and never silently broken."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from client.batches.patches import Batch
from client.device import Device
from client.training.loss import segmentation_loss
from client.training.optimise import Pace
from client.training.train import Objective, _add_proximal_gradient, begin, train
from common.augmentation import Augmentation
from common.axes import Weights
from common.config import Training
from common.errors import FederationError
from common.network import UNet, initial_weights, load_weights, weights_of
from common.planning.plan import Configuration
from common.schedules import Constant, Poly
from common.task import Task

CPU = Device(torch.device("cpu"), torch.float32)
TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)
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


def network() -> UNet:
    built = UNet(1, 2, PLAN, "instance", deep_supervision=True)
    load_weights(built, initial_weights(built, 1))
    return built


def objective(mu: float = 0.0) -> Objective:
    return Objective(
        task=TASK, output="labels", batch_dice=False, supervision=(1.0,), proximal_mu=mu
    )


def training(
    optimizer: str = "sgd", momentum: float = 0.9, clip: float = 12.0, decay: float = 3e-5
) -> Training:
    return Training(
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.05,
        momentum=momentum,
        weight_decay=decay,
        schedule=Poly(power=0.9),
        gradient_clip_norm=clip,
        augmentation=Augmentation(preset="none"),
        validation_fraction=0,
    )


def batches(n: int) -> list[Batch]:
    drawn = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        images = rng.standard_normal((2, 1, 8, 8, 8)).astype(np.float32)
        drawn.append(Batch(images, (images[:, 0] > 0.5).astype(np.uint8)))
    return drawn


def pace(n: int) -> Pace:
    return Pace(Poly(power=0.9), learning_rate=0.05, first_step=0, total_steps=n)


def train_on(
    built: nn.Module,
    drawn: list[Batch],
    mu: float = 0.0,
    chosen: Training | None = None,
    at: Pace | None = None,
) -> tuple[int, float]:
    learner = begin(built, chosen or training(), CPU, proximal=mu > 0)
    return train(learner, drawn, objective(mu), at or pace(max(1, len(drawn))), CPU)


def trained(
    n: int, mu: float = 0.0, chosen: Training | None = None
) -> tuple[Weights, tuple[int, float]]:
    built = network()
    result = train_on(built, batches(n), mu, chosen)
    return weights_of(built), result


def same(one: Weights, other: Weights) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one)


def moved(weights: Weights) -> float:
    start = weights_of(network())
    return math.sqrt(sum(np.square(weights[name] - start[name]).sum() for name in start))


# The loop


def test_the_same_batches_twice_give_the_same_weights_bit_for_bit() -> None:
    (one, first), (other, second) = trained(4), trained(4)
    assert same(one, other)
    assert first == second


def test_other_batches_give_other_weights() -> None:
    assert not same(trained(2)[0], trained(3)[0])


def test_a_round_tells_its_steps_and_its_mean_loss() -> None:
    built = network().train()
    expected = []
    for batch in batches(2):  # without any training, the loss of the received weights
        logits = built(torch.from_numpy(batch.images))
        labels = torch.from_numpy(batch.labels)
        loss = segmentation_loss(logits, labels, TASK, "labels", batch_dice=False)
        expected.append(loss.item())
    still = Pace(Constant(), learning_rate=0.0, first_step=0, total_steps=2)
    n_steps, mean = train_on(network(), batches(2), at=still)
    assert n_steps == 2
    assert mean == pytest.approx(sum(expected) / 2, abs=1e-6)


def test_no_batches_change_nothing() -> None:
    weights, result = trained(0)
    assert result == (0, 0.0)
    assert moved(weights) == 0


def test_training_lowers_the_loss() -> None:
    built, batch = network(), batches(1)[0]
    steady = Pace(Constant(), learning_rate=0.05, first_step=0, total_steps=100)
    _, first = train_on(built, [batch] * 5, at=steady)
    _, later = train_on(built, [batch] * 5, at=steady)
    assert later < first


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_round(value: float) -> None:
    batch = batches(1)[0]
    batch.images[0, 0, 3, 3, 3] = value
    with pytest.raises(FederationError, match="training diverged: mean loss nan"):
        train_on(network(), [batch])


def test_gradients_are_clipped_to_the_norm() -> None:
    # One step of plain SGD of rate 0.05 moves by 0.05 times the clipped norm.
    weights, _ = trained(1, chosen=training(momentum=0.0, clip=1e-3, decay=0.0))
    assert moved(weights) == pytest.approx(0.05 * 1e-3, rel=1e-2)


# FedProx


def plain_sgd(n: int) -> Weights:
    """Train with torch alone, without anything proximal."""
    built = network().train()
    optimizer = torch.optim.SGD(
        built.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=3e-5, fused=True
    )
    for step, batch in enumerate(batches(n)):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / n) ** 0.9
        optimizer.zero_grad()
        logits, labels = built(torch.from_numpy(batch.images)), torch.from_numpy(batch.labels)
        loss = segmentation_loss(logits, labels, TASK, "labels", batch_dice=False)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(built.parameters(), 12.0)
        optimizer.step()
    return weights_of(built)


def test_a_proximal_term_of_zero_is_fedavg_bit_for_bit() -> None:
    assert same(trained(4, mu=0.0)[0], plain_sgd(4))


def test_a_larger_proximal_term_keeps_a_site_closer_to_what_it_received() -> None:
    loose = training(momentum=0.0, clip=1e9, decay=0.0)
    distances = [moved(trained(6, mu, loose)[0]) for mu in (0.0, 1.0, 4.0, 12.0)]
    assert distances == sorted(distances, reverse=True)
    assert distances[3] < 0.75 * distances[0]


def test_the_first_step_feels_no_proximal_term() -> None:
    assert same(trained(1, mu=0.0)[0], trained(1, mu=5.0)[0])


def test_the_proximal_gradient_is_mu_times_the_distance() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -1.0]]))
    layer.weight.grad = torch.tensor([[0.5, 0.5]])
    _add_proximal_gradient(layer, [torch.tensor([[1.0, 1.0]])], 0.25)
    # 0.5 + 0.25 * (3 - 1) = 1, 0.5 + 0.25 * (-1 - 1) = 0
    assert layer.weight.grad.tolist() == [[1.0, 0.0]]


# Equal runs


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_optimiser_gives_the_same_weights_twice_bit_for_bit(
    optimizer: str, dtype: torch.dtype
) -> None:
    def once() -> Weights:
        device = Device(torch.device("cpu"), dtype)
        built = device.place_network(network())
        learner = begin(built, training(optimizer), device, proximal=False)
        train(learner, batches(3), objective(), pace(3), device)
        return weights_of(built)

    assert same(once(), once())


def test_what_is_random_inside_a_network_follows_from_the_step() -> None:
    def after_third_step(first: int) -> Weights:
        built = nn.Sequential(nn.Dropout3d(0.5), nn.Conv3d(1, 2, 1))
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.fill_(0.5)
        plain = training(momentum=0.0)
        learner = begin(built, plain, CPU, proximal=False, forward=lambda x: [built(x)])
        learner.losses += [torch.zeros(())] * first  # steps done before, of rate 0
        still = Pace(Constant(), learning_rate=0.0, first_step=0, total_steps=3)
        train(learner, batches(2 - first), objective(), still, CPU, seed_of_step=lambda s: s)
        moving = Pace(Constant(), learning_rate=0.1, first_step=0, total_steps=3)
        train(learner, batches(1), objective(), moving, CPU, seed_of_step=lambda s: s)
        return weights_of(built)

    assert same(after_third_step(0), after_third_step(2))


def test_the_losses_are_not_read_before_the_end() -> None:
    seen = []
    learner = begin(network(), training(), CPU, proximal=False)
    train(
        learner, batches(2), objective(), pace(2), CPU, after_step=lambda at: seen.append(at.step)
    )
    assert seen == [1, 2]
    assert all(isinstance(loss, torch.Tensor) and not loss.requires_grad for loss in learner.losses)
