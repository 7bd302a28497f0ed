"""FedDyn's drift at a site: kept from round to round, and what it makes of the local objective."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from client.batches.patches import Batch
from client.device import Device
from client.training.drift import load_drift, save_drift, shifted
from client.training.optimise import Pace
from client.training.train import Objective, begin, train
from common.augmentation import Augmentation
from common.config import Training
from common.errors import ConfigError
from common.schedules import Constant
from common.task import Task

CPU = Device(torch.device("cpu"), torch.float32)
TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)
TRAINING = Training(
    optimizer="sgd",
    learning_rate=0.5,
    momentum=0.0,
    weight_decay=0,
    schedule=Constant(),
    gradient_clip_norm=1e9,
    augmentation=Augmentation(preset="none"),
    validation_fraction=0,
)


class Still(nn.Module):
    """Two weights that the loss does not move: only the regularisation does."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((2,), value))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [image.new_zeros((1, 2, *image.shape[2:])) + 0 * self.w.sum()]


def values(tensors: list[torch.Tensor]) -> list[list[float]]:
    return [tensor.tolist() for tensor in tensors]


def test_before_the_first_round_there_is_no_drift(tmp_path: Path) -> None:
    assert values(load_drift(tmp_path / "round-0000.safetensors", Still(3.0))) == [[0.0, 0.0]]


def test_the_drift_is_the_sum_of_what_the_site_moved_turned_round(tmp_path: Path) -> None:
    # received 1, trained to 4: drift -3; then received 2, trained to 2.5: drift -3.5
    save_drift(tmp_path / "round-0001.safetensors", Still(4.0), [torch.ones(2)])
    drift = load_drift(tmp_path / "round-0001.safetensors", Still(2.0))
    assert values(drift) == [[-3.0, -3.0]]
    origin = shifted([torch.full((2,), 2.0)], drift)
    assert values(origin) == [[-1.0, -1.0]]
    save_drift(tmp_path / "round-0002.safetensors", Still(2.5), origin)
    assert values(load_drift(tmp_path / "round-0002.safetensors", Still())) == [[-3.5, -3.5]]


def test_a_round_that_is_asked_for_again_starts_from_the_same_drift(tmp_path: Path) -> None:
    for round_, value in ((1, 1.0), (2, 2.0)):
        path = tmp_path / f"round-{round_:04d}.safetensors"
        save_drift(path, Still(value), [torch.zeros(2)])
    assert values(load_drift(tmp_path / "round-0001.safetensors", Still())) == [[-1.0, -1.0]]
    # a missed round changes nothing
    assert values(load_drift(tmp_path / "round-0007.safetensors", Still())) == [[-2.0, -2.0]]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "round-0001.safetensors"
    path.write_bytes(b"half")
    with pytest.raises(ConfigError, match=r"round-0001.safetensors: expected a site's drift"):
        load_drift(path, Still())


def test_training_is_pulled_to_the_shifted_origin() -> None:
    network = Still(2.0)
    learner = begin(network, TRAINING, CPU, proximal=True)
    learner.received = shifted(learner.received, [torch.full((2,), -4.0)])
    images = np.zeros((1, 1, 4, 4, 4), np.float32)
    batches = [Batch(images, np.zeros((1, 4, 4, 4), np.uint8))] * 3
    objective = Objective(TASK, "labels", batch_dice=False, supervision=(1.0,), proximal_mu=0.5)
    pace = Pace(Constant(), learning_rate=0.5, first_step=0, total_steps=3)
    train(learner, batches, objective, pace, CPU)
    # origin -2; each step leaves 1 - 0.5 * 0.5 of the way: -2 + 4 * 0.75^3
    assert network.w.tolist() == pytest.approx([-0.3125, -0.3125])
