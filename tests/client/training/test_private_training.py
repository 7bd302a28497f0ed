"""The private loop: FedProx outside the clipped path, no decision by losses, refusals."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client.batches.patches import Batch
from client.device import Device
from client.privacy.private_step import Mechanism
from client.privacy.requirements import private_device, require_same_buffers, require_separate
from client.training.optimise import Pace
from client.training.private_training import train_privately
from client.training.round_checkpoint import RoundCheckpoint
from client.training.train import Learner, Objective, begin
from common.augmentation import Augmentation
from common.axes import Weights
from common.config import Training
from common.errors import FederationError, PolicyError
from common.network import UNet, initial_weights, load_weights, weights_of
from common.planning.plan import Configuration
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
PLAN = Configuration(
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(8.0, 8.0, 8.0),
    patch_size=(8, 8, 8),
    batch_size=2,
    strides=((2, 2, 2),),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    features_per_stage=(4, 4),
    batch_dice=True,
    deep_supervision_weights=(1.0,),
)
MECHANISM = Mechanism(clip_norm=0.5, noise_multiplier=1.0, expected_patients=2.0, patches_at_once=2)


def training(rate: float = 0.1) -> Training:
    return Training(
        optimizer="sgd",
        learning_rate=rate,
        momentum=0.0,
        weight_decay=0.0,
        schedule=Constant(),
        gradient_clip_norm=1e9,
        augmentation=Augmentation(preset="none"),
        validation_fraction=0,
    )


def patient(seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((2, 1, 8, 8, 8)).astype(np.float32)
    return Batch(images, (images[:, 0] > 0.5).astype(np.uint8))


def no_noise(n: int, device: torch.device) -> Tensor:
    return torch.zeros(n, dtype=torch.float64, device=device)


def learner(device: Device = CPU, norm: str = "instance", rate: float = 0.1) -> Learner:
    built = UNet(1, 2, PLAN, norm, deep_supervision=True)  # type: ignore[arg-type]
    load_weights(built, initial_weights(built, 1))
    return begin(built, training(rate), device, proximal=True)


def take(
    made: Learner,
    steps: list[list[Batch]],
    mu: float = 0.0,
    normals: Callable[[int, torch.device], Tensor] = no_noise,
    device: Device = CPU,
) -> tuple[int, float]:
    objective = Objective(
        task=TASK, output="labels", batch_dice=True, supervision=(1.0,), proximal_mu=mu
    )
    pace = Pace(Constant(), made.optimizer.defaults["lr"], first_step=0, total_steps=10)
    return train_privately(
        made, steps, objective, pace, device, mechanism=MECHANISM, normals=normals
    )


def moved(made: Learner, before: Weights) -> dict[str, np.ndarray]:
    return {name: after - before[name] for name, after in weights_of(made.network).items()}


def norm(change: dict[str, np.ndarray]) -> float:
    return math.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for part in change.values()))


def test_a_step_is_bounded_by_its_patients() -> None:
    made = learner()
    before = weights_of(made.network)
    assert take(made, [[patient(1), patient(2)]])[0] == 1
    # rate 0.1 * 2 patients * 0.5 / 2 expected
    assert 0 < norm(moved(made, before)) <= 0.05 * (1 + 1e-5)


def test_the_proximal_term_is_outside_what_is_clipped() -> None:
    plain, pulled = learner(), learner()
    for made in (plain, pulled):
        with torch.no_grad():
            for origin in made.received:
                origin.sub_(1.0)  # w - origin = 1 everywhere
    before = weights_of(plain.network)
    take(plain, [[patient(1)]])
    take(pulled, [[patient(1)]], mu=1e4)
    difference = {
        name: change - moved(plain, before)[name] for name, change in moved(pulled, before).items()
    }
    for change in difference.values():  # -rate * mu * 1, whatever the patient's gradient is
        np.testing.assert_allclose(change, -1000.0, rtol=1e-4)


def test_an_empty_draw_is_a_step_of_noise_alone() -> None:
    made = learner()
    before = weights_of(made.network)

    def ones(n: int, device: torch.device) -> Tensor:
        return torch.ones(n, dtype=torch.float64, device=device)

    n_steps, loss = take(made, [[]], normals=ones)
    assert n_steps == 1
    assert math.isnan(loss)
    for change in moved(made, before).values():  # rate 0.1 * noise 0.5 / 2 expected patients
        np.testing.assert_allclose(change, -0.025, rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_nothing() -> None:
    made, broken = learner(), patient(1)
    broken.images[:] = math.nan
    n_steps, loss = take(made, [[broken], [patient(2)]])
    assert n_steps == 2
    assert all(np.isfinite(tensor).all() for tensor in weights_of(made.network).values())
    assert math.isfinite(loss)  # of the other step


def test_weights_that_are_not_finite_after_the_noise_are_reported() -> None:
    made = learner(rate=1e38)
    with pytest.raises(FederationError, match="expected finite weights after the noise"):
        take(made, [[patient(1)]] * 3, normals=lambda n, _: torch.full((n,), 1e9).double())


def test_the_loss_is_of_every_sample_even_where_the_plan_sums_over_the_batch() -> None:
    made = Objective(
        task=TASK, output="labels", batch_dice=True, supervision=(1.0,), proximal_mu=0.0
    )
    assert made.per_sample().batch_dice is False


def test_batch_norm_in_the_network_is_refused_whatever_the_configuration_says() -> None:
    made = learner(norm="batch")
    with pytest.raises(PolicyError, match=r"found encoder\.0\.1 \(BatchNorm3d\), ") as refused:
        take(made, [[patient(1)]])
    assert refused.value.rule == "privacy"


@pytest.mark.parametrize(
    ("layer", "allowed"),
    [
        (nn.InstanceNorm3d(2), True),
        (nn.GroupNorm(1, 2), True),
        (nn.LayerNorm(2), True),
        (nn.InstanceNorm3d(2, track_running_stats=True), False),
        (nn.BatchNorm2d(2, track_running_stats=False), False),
        (nn.SyncBatchNorm(2), False),
    ],
)
def test_norms_are_refused_that_mix_patients_or_keep_statistics(
    layer: nn.Module, allowed: bool
) -> None:
    if allowed:
        require_separate(layer)
        return
    with pytest.raises(PolicyError, match="expected a network without norms over several"):
        require_separate(nn.Sequential(layer))


def test_a_buffer_that_training_changed_is_refused() -> None:
    layer = nn.Module()
    layer.register_buffer("seen", torch.zeros(2))
    before = {"seen": torch.zeros(2)}
    require_same_buffers(layer, before)
    layer.seen.add_(1)
    with pytest.raises(PolicyError, match="found a changed buffer"):
        require_same_buffers(layer, before)


def test_float16_is_refused_where_demanded_and_replaced_where_chosen() -> None:
    half = Device(torch.device("cpu"), torch.float16)
    with pytest.raises(PolicyError, match="found float16"):
        private_device(half, "float16")
    assert private_device(half, "auto") == CPU
    brain = Device(torch.device("cpu"), torch.bfloat16)
    assert private_device(brain, "auto") == brain
    with pytest.raises(PolicyError, match="whose skipped steps depend on the data"):
        take(learner(half), [[patient(1)]], device=half)


def test_bfloat16_is_clipped_in_float32() -> None:
    device = Device(torch.device("cpu"), torch.bfloat16)
    made = learner(device)
    before = weights_of(made.network)
    take(made, [[patient(1)]], device=device)
    assert 0 < norm(moved(made, before)) <= 0.025 * (1 + 1e-5)


def test_no_seed_of_the_run_repeats_the_noise() -> None:
    ends = []
    for _ in range(2):
        made = learner()
        objective = Objective(
            task=TASK, output="labels", batch_dice=False, supervision=(1.0,), proximal_mu=0.0
        )
        private = partial(train_privately, mechanism=MECHANISM, seed_of_step=lambda step: step)
        private(made, [[patient(1)]], objective, Pace(Constant(), 0.1, 0, 1), CPU)
        ends.append(weights_of(made.network))
    assert all((ends[0][name] != ends[1][name]).all() for name in ends[0])


def test_a_round_goes_on_after_its_checkpoint_also_past_an_empty_draw(tmp_path: Path) -> None:
    checkpoint = RoundCheckpoint(tmp_path / "unfinished.safetensors", "this round", every_steps=2)
    killed = learner()
    take(killed, [[patient(1)], []])
    checkpoint.keep(killed)
    resumed = learner()
    assert checkpoint.restore(resumed) == 2
    n_steps, loss = take(resumed, [[patient(2)]])
    assert n_steps == 3
    assert math.isfinite(loss)


def test_training_lowers_the_loss_where_the_noise_is_small() -> None:
    made = learner(rate=0.5)
    drawn = [patient(seed) for seed in range(2)]
    take(made, [drawn] * 15)
    first, last = made.losses[0].item(), made.losses[-1].item()
    assert last < first - 0.1
