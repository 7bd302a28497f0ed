"""The sum of clipped gradients: what one patient can change, and what the noise adds."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from client.batches.patches import Batch
from client.privacy.clipping import add_clipped, norm_of
from client.privacy.per_sample import PerSample
from client.privacy.private_step import Mechanism, clipped_sum, noised_mean
from client.training.loss import segmentation_loss
from client.training.optimise import trained
from common.network import UNet, initial_weights, load_weights
from common.planning.plan import Configuration
from common.privacy.noise import secure_normals
from common.task import Task

TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1, "two": 2},
    regions={"whole": (1, 2), "core": (2,)},
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
    deep_supervision_weights=(1.0, 0.5),
)
BAD = (math.nan, math.inf, -math.inf, 1e30, -1e18)
SLACK = 1e-5  # sums of float32


def network() -> UNet:
    built = UNet(1, 2, PLAN, "instance", deep_supervision=True)
    load_weights(built, initial_weights(built, 1))
    return built.train()


def loss_of(built: nn.Module, batch: Batch) -> Tensor:
    return segmentation_loss(
        built(torch.from_numpy(batch.images)),
        torch.from_numpy(batch.labels),
        TASK,
        "regions",
        batch_dice=False,
        supervision=(1.0,),
    )


def patient(seed: int, n_patches: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n_patches, 1, 8, 8, 8)).astype(np.float32)
    return Batch(images, rng.integers(0, 3, (n_patches, 8, 8, 8)).astype(np.uint8))


def mechanism(clip_norm: float = 1.0, noise: float = 1.0, at_once: int = 8) -> Mechanism:
    return Mechanism(clip_norm, noise, expected_patients=4.0, patches_at_once=at_once)


def sum_of(built: nn.Module, patients: list[Batch], how: Mechanism) -> list[Tensor]:
    total, _ = clipped_sum(trained(built), patients, partial(loss_of, built), how)
    return total


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    return norm_of([x - y for x, y in zip(a, b, strict=True)])


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 50), max_size=3),
    st.integers(100, 150),
    st.integers(1, 3),
    st.sampled_from([1e-3, 1.0, 100.0]),
    st.sampled_from([None, *BAD]),
)
def test_one_patient_changes_the_sum_by_at_most_the_clip_norm(
    others: list[int], one: int, n_patches: int, clip_norm: float, bad: float | None
) -> None:
    built, how = network(), mechanism(clip_norm)
    rest, further = [patient(seed) for seed in others], patient(one, n_patches)
    if bad is not None:
        further.images[0, 0, 2, 3, 4] = bad
    with_it, without = sum_of(built, [*rest, further], how), sum_of(built, rest, how)
    assert apart(with_it, without) <= clip_norm * (1 + SLACK * (1 + len(others)))


@pytest.mark.parametrize("bad", BAD)
def test_adversarial_patches_are_bounded_and_poison_nobody(bad: float) -> None:
    built, how = network(), mechanism(0.5)
    worst = patient(1)
    worst.images[:] = bad
    alone, beside = sum_of(built, [worst], how), sum_of(built, [worst, patient(2)], how)
    assert norm_of(alone) <= 0.5
    assert all(torch.isfinite(tensor).all() for tensor in beside)
    assert apart(beside, sum_of(built, [patient(2)], how)) <= 0.5 + SLACK


def test_a_patient_with_many_patches_counts_once() -> None:
    built = network()
    scans = patient(3, n_patches=6)
    assert norm_of(sum_of(built, [scans], mechanism(1e-3))) == pytest.approx(1e-3, rel=1e-4)
    # far above the norm nothing is clipped: the mean over its patches
    each = [Batch(scans.images[i : i + 1], scans.labels[i : i + 1]) for i in range(6)]
    mean = [tensor / 6 for tensor in sum_of(built, each, mechanism(1e6))]
    assert apart(sum_of(built, [scans], mechanism(1e6)), mean) <= 1e-4 * norm_of(mean)


def test_patches_in_parts_give_the_same_gradient() -> None:
    built, scans = network(), patient(4, n_patches=5)
    whole = sum_of(built, [scans], mechanism(1e6, at_once=5))
    parts = sum_of(built, [scans], mechanism(1e6, at_once=2))
    assert apart(whole, parts) <= 1e-4 * norm_of(whole)


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_gradients_of_a_whole_batch_by_opacus_give_the_same_sum(clip_norm: float) -> None:
    built, drawn = network(), [patient(seed, n_patches=2) for seed in range(3)]
    expected = sum_of(built, drawn, mechanism(clip_norm))
    images = np.concatenate([batch.images for batch in drawn])
    labels = np.concatenate([batch.labels for batch in drawn])

    def loss() -> Tensor:
        stages = built(torch.from_numpy(images))
        losses = [
            segmentation_loss(
                [stage[i : i + 1] for stage in stages],
                torch.from_numpy(labels[i : i + 1]),
                TASK,
                "regions",
                batch_dice=False,
            )
            for i in range(len(images))
        ]
        return torch.stack(losses).sum()

    found = PerSample(built).gradients(loss)
    total = [torch.zeros_like(parameter) for parameter in trained(built)]
    for first in (0, 2, 4):
        means = [None if g is None else g[first : first + 2].mean(0) for g in found]
        add_clipped(total, means, clip_norm)
    assert apart(total, expected) <= 1e-4 * norm_of(expected)


def test_an_empty_draw_is_pure_noise_of_the_stated_deviation() -> None:
    built, how = network(), mechanism(clip_norm=0.5, noise=3.0)
    generator = torch.Generator().manual_seed(5)

    def seeded(n: int, device: torch.device) -> Tensor:
        return torch.randn(n, generator=generator, dtype=torch.float64, device=device)

    total = sum_of(built, [], how)
    assert all(not tensor.any() for tensor in total)
    values = torch.cat([tensor.flatten() for tensor in noised_mean(total, how, seeded)])
    # 3.0 * 0.5 / 4 expected patients; 7 deviations of a deviation of so many values
    assert values.std().item() == pytest.approx(0.375, rel=7 / math.sqrt(2 * len(values)))
    assert len(values) == sum(parameter.numel() for parameter in built.parameters())


def test_the_noise_is_added_to_the_sum_and_divided_by_the_expected_number() -> None:
    how = Mechanism(2.0, 0.5, expected_patients=5.0, patches_at_once=1)

    def ones(n: int, device: torch.device) -> Tensor:
        return torch.ones(n, dtype=torch.float64, device=device)

    (mean,) = noised_mean([torch.tensor([[4.0, -1.0]])], how, ones)
    # noise of deviation 0.5 * 2: 4 and 1 by 5, -1 and 1 by 5
    assert mean.dtype == torch.float32
    assert mean.tolist() == [[1.0, 0.0]]


def test_no_two_steps_have_the_same_noise() -> None:
    total = [torch.zeros(100)]
    first = noised_mean(total, mechanism(), secure_normals)
    second = noised_mean(total, mechanism(), secure_normals)
    assert not (first[0] == second[0]).any()


@pytest.mark.parametrize("values", [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_mechanism_without_noise_or_bound_cannot_be_made(
    values: tuple[float, float, float], bad: float
) -> None:
    with pytest.raises(ValueError, match="expected finite values above 0"):
        Mechanism(*(value or bad for value in values), patches_at_once=1)
