"""A round that goes on from a checkpoint ends with the weights of one that was never stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client.batches.patches import Batch
from client.device import Device
from client.training.optimise import Pace
from client.training.optimizer_state import arrays_of, load_optimizer, put_arrays, save_optimizer
from client.training.round_checkpoint import RoundCheckpoint, digest_of
from client.training.train import Learner, Objective, begin, train
from common.augmentation import Augmentation
from common.axes import Weights
from common.config import Training
from common.errors import ConfigError, DiskError
from common.messages import TrainTask
from common.network import weights_of
from common.schedules import Poly
from common.task import Task

CPU = Device(torch.device("cpu"), torch.float32)
TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)
N_STEPS = 5


class Toy(nn.Module):
    """What a real network has: batch statistics, chance, and convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.LeakyReLU(),
            nn.Dropout3d(0.4),
            nn.Conv3d(4, 2, 1),
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.layers(image)]


def training(optimizer: str) -> Training:
    return Training(
        optimizer=optimizer,  # type: ignore[arg-type]
        learning_rate=0.05,
        momentum=0.9,
        weight_decay=3e-5,
        schedule=Poly(power=0.9),
        gradient_clip_norm=12.0,
        augmentation=Augmentation(preset="none"),
        validation_fraction=0,
    )


def learner(optimizer: str = "sgd", mu: float = 0.0) -> Learner:
    torch.manual_seed(1)
    network = CPU.place_network(Toy())
    return begin(network, training(optimizer), CPU, proximal=mu > 0)


def batches(first: int) -> list[Batch]:
    drawn = []
    for step in range(first, N_STEPS):
        images = np.random.default_rng(step).standard_normal((2, 1, 6, 6, 6)).astype(np.float32)
        drawn.append(Batch(images, (images[:, 0] > 0.5).astype(np.uint8)))
    return drawn


def go_on(of: Learner, checkpoint: RoundCheckpoint, mu: float = 0.0) -> tuple[int, float]:
    """Train to the end of the round from where the learner is."""
    return train(
        of,
        batches(of.step),
        Objective(TASK, "labels", batch_dice=False, supervision=(1.0,), proximal_mu=mu),
        Pace(Poly(power=0.9), learning_rate=0.05, first_step=10, total_steps=50),
        CPU,
        seed_of_step=lambda step: step,
        after_step=checkpoint.after_step,
    )


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(
        one[name].tobytes() == other[name].tobytes() for name in one
    )


@pytest.mark.parametrize("mu", [0.0, 0.5])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_round_that_goes_on_ends_like_one_that_was_not_stopped(
    optimizer: str, mu: float, tmp_path: Path
) -> None:
    whole = learner(optimizer, mu)
    result = go_on(whole, RoundCheckpoint(tmp_path / "none", "a", every_steps=0), mu)
    checkpoint = RoundCheckpoint(tmp_path / "fedavg.safetensors", "a", every_steps=2)
    go_on(learner(optimizer, mu), checkpoint, mu)  # leaves the checkpoint of its fourth step

    resumed = learner(optimizer, mu)
    assert checkpoint.restore(resumed) == 4
    assert go_on(resumed, checkpoint, mu) == result
    assert same(weights_of(resumed.network), weights_of(whole.network))
    assert same(arrays_of(resumed.optimizer), arrays_of(whole.optimizer))


def test_without_a_checkpoint_a_round_begins_at_its_first_step(tmp_path: Path) -> None:
    begun = learner()
    assert RoundCheckpoint(tmp_path / "none", "a", every_steps=2).restore(begun) == 0
    assert begun.step == 0


def test_a_checkpoint_of_something_else_is_not_used(tmp_path: Path) -> None:
    path, begun = tmp_path / "fedavg.safetensors", learner()
    go_on(learner(), RoundCheckpoint(path, "a", every_steps=2))
    before = weights_of(begun.network)
    assert RoundCheckpoint(path, "b", every_steps=2).restore(begun) == 0
    assert same(weights_of(begun.network), before)


def test_zero_keeps_nothing(tmp_path: Path) -> None:
    go_on(learner(), RoundCheckpoint(tmp_path / "fedavg.safetensors", "a", every_steps=0))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fedavg.safetensors"
    path.write_bytes(b"half of a file")
    with pytest.raises(DiskError, match=r"fedavg.safetensors: damaged.*delete it"):
        RoundCheckpoint(path, "a", every_steps=2).restore(learner())


def task(**changes: object) -> TrainTask:
    settings: dict[str, object] = {
        "run": "r",
        "plan_hash": "0",
        "method": "fedavg",
        "round": 3,
        "proximal_mu": 0.0,
        **changes,
    }
    return TrainTask(**settings)  # type: ignore[arg-type]


def test_a_round_is_told_by_all_that_the_site_received() -> None:
    weights = {"a": np.zeros(2, np.float32), "b": np.ones(1, np.float32)}
    digest = digest_of(task(), weights)
    assert digest == digest_of(task(), dict(reversed(weights.items())))
    others = [
        digest_of(task(round=4), weights),
        digest_of(task(method="fedprox", proximal_mu=0.01), weights),
        digest_of(task(rate_factor=0.1), weights),
        digest_of(task(), {**weights, "b": np.zeros(1, np.float32)}),
    ]
    assert len({digest, *others}) == 5


# Momentum between rounds


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_optimisers_state_survives_its_file(optimizer: str, tmp_path: Path) -> None:
    one, other = learner(optimizer), learner(optimizer)
    go_on(one, RoundCheckpoint(tmp_path / "none", "a", every_steps=0))
    save_optimizer(tmp_path / "round-0001.safetensors", one.optimizer)
    load_optimizer(tmp_path / "round-0002.safetensors", other.optimizer)  # missed a round
    assert same(arrays_of(one.optimizer), arrays_of(other.optimizer))
    assert one.optimizer.state_dict()["param_groups"][0]["weight_decay"] == 3e-5


def test_a_later_rounds_state_is_not_used(tmp_path: Path) -> None:
    one, other = learner(), learner()
    go_on(one, RoundCheckpoint(tmp_path / "none", "a", every_steps=0))
    save_optimizer(tmp_path / "round-0003.safetensors", one.optimizer)
    load_optimizer(tmp_path / "round-0002.safetensors", other.optimizer)
    assert arrays_of(other.optimizer) == {}


def test_the_state_of_the_last_two_rounds_is_kept(tmp_path: Path) -> None:
    for round_ in (1, 2, 3):
        save_optimizer(tmp_path / f"round-{round_:04d}.safetensors", learner().optimizer)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["round-0002.safetensors", "round-0003.safetensors"]


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "round-0001.safetensors"
    path.write_bytes(b"half of a file")
    with pytest.raises(ConfigError, match="expected an optimiser's state"):
        load_optimizer(path, learner().optimizer)


def test_momentum_lies_in_the_layout_of_its_weight() -> None:
    one = learner()
    weight = next(one.network.parameters())
    put_arrays(one.optimizer, {"0.momentum_buffer": np.ones((4, 1, 3, 3, 3), np.float32)})
    buffer = one.optimizer.state[weight]["momentum_buffer"]
    assert buffer.stride() == weight.stride()
