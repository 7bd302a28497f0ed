"""A site's batch-norm statistics: estimated by hand-checked averages, kept, and never replaced."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.device import Device
from client.policy import Policy
from client.site import Agreement, SiteConfig
from client.statistics import (
    calibrate,
    calibrate_on,
    load_local,
    random_patches,
    save_local,
    statistics_file,
)
from common.axes import Image, Weights
from common.batchnorm import local_names
from common.config import RunConfig
from common.errors import ConfigError, MessageError
from common.messages import PrepareTask
from common.network import initial_weights, load_weights, weights_of
from common.planning.fingerprint import empty
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor
from common.task import load_task

CPU = Device(torch.device("cpu"), torch.float32)


def site(tmp_path: Path) -> SiteConfig:
    policy = Policy(metrics="none", validation_means=False, pictures=False, fingerprint="exact")
    return SiteConfig(name="a", data="data", state=str(tmp_path / "state"), policy=policy)


def batch(*values: float) -> np.ndarray:
    """Return one sample of one channel, its voxels along the last axis."""
    return np.array(values, np.float32).reshape(1, 1, 1, 1, -1)


def numbers(tensor: torch.Tensor | None) -> list[float]:
    assert tensor is not None
    return tensor.tolist()  # type: ignore[no-any-return]


# Calibration


def test_statistics_are_the_plain_average_over_the_batches() -> None:
    layer = nn.BatchNorm3d(1)
    layer.running_mean = torch.tensor([99.0])  # another site's: forgotten
    # means 1, 7 and 4; variances, over n - 1: 2, 18 and 4
    batches = [batch(0, 2), batch(4, 10), batch(2, 4, 6)]
    assert calibrate(nn.Sequential(layer), batches, CPU) == 3
    assert numbers(layer.running_mean) == pytest.approx([4.0])
    assert numbers(layer.running_var) == pytest.approx([8.0])
    assert layer.num_batches_tracked is not None
    assert layer.num_batches_tracked.item() == 3


def test_a_deeper_layer_sees_what_the_layer_before_makes_of_the_batch() -> None:
    network = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, 1, 1), nn.BatchNorm3d(1))
    with torch.no_grad():
        network[1].weight.fill_(3.0)
        network[1].bias.fill_(0.5)
    calibrate(network, [batch(0, 2), batch(10, 30)], CPU)
    # normalised by the batch itself: -1, 1; then -2.5, 3.5: mean 0.5, variance 18
    assert numbers(network[2].running_mean) == pytest.approx([0.5], abs=1e-4)
    assert numbers(network[2].running_var) == pytest.approx([18.0], rel=1e-4)


def test_the_momentum_of_every_layer_is_restored() -> None:
    network = nn.Sequential(nn.BatchNorm3d(1, momentum=0.3), nn.BatchNorm3d(1, momentum=0.01))
    calibrate(network, [batch(0, 2)], CPU)
    assert [network[0].momentum, network[1].momentum] == [0.3, 0.01]


def test_nothing_but_the_statistics_changes() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2))
    before = weights_of(network)
    calibrate(network, [batch(0, 2), batch(5, 6)], CPU)
    after = weights_of(network)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_calibrated_network_is_ready_to_predict() -> None:
    network = nn.Sequential(nn.BatchNorm3d(1)).train()
    calibrate(network, [batch(0, 2)], CPU)
    assert not network.training
    # mean 1 and variance 2, with 1e-5 below the root: 2 / 1.414217
    found = network(torch.from_numpy(batch(1, 3)))
    assert found.flatten().tolist() == pytest.approx([0.0, 1.414210], abs=1e-6)


def test_the_same_batches_give_the_same_statistics_bit_for_bit() -> None:
    def calibrated() -> bytes:
        layer = nn.BatchNorm3d(1)
        calibrate(nn.Sequential(layer), [batch(0.1, 0.7), batch(0.3, 0.9)], CPU)
        return b"".join(tensor.tobytes() for tensor in weights_of(layer).values())

    assert calibrated() == calibrated()


def test_a_network_without_batch_norm_needs_no_batch() -> None:
    network = nn.Sequential(nn.InstanceNorm3d(1, affine=True, track_running_stats=True))
    before = weights_of(network)
    assert calibrate(network, [batch(0, 2)], CPU) == 0
    after = weights_of(network)
    assert all(np.array_equal(after[name], before[name]) for name in after)


# Which cases it reads


@pytest.fixture
def config(tiny_study: Any) -> RunConfig:
    found: RunConfig = tiny_study.config
    return found


def agreement(config: RunConfig) -> Agreement:
    task = load_task(config.task)
    plan = Plan(
        schema=1,
        hash="0",
        rules="paper",
        planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
        channels=task.channels,
        transpose=(0, 1, 2),
        normalization=tuple(Normalization(channel=c, scheme="z-score") for c in task.channels),
        configurations={
            "3d_fullres": Configuration(
                spacing_mm=(1.0, 1.0, 1.0),
                median_shape=(8.0, 8.0, 8.0),
                patch_size=(8, 8, 8),
                batch_size=2,
                strides=((2, 2, 2),),
                kernel_sizes=((3, 3, 3), (3, 3, 3)),
                features_per_stage=(2, 2),
                batch_dice=False,
                deep_supervision_weights=(1.0,),
            )
        },
    )
    terms = PrepareTask(
        run="r", task=task, config=config, fingerprint=empty(task), plan_hash=plan.hash
    )
    return Agreement(terms=terms, plan=plan)


def calibrated_on(terms: Agreement, n_cases: int, name: str = "a") -> tuple[list[int], Weights]:
    """Return which of a site's cases were read, in order, and the network after it."""
    read: list[int] = []

    def image(case: int) -> Image:
        read.append(case)
        return np.random.default_rng(case).standard_normal((4, 9, 8, 8)).astype(np.float32)

    network = terms.network()
    load_weights(network, initial_weights(network, 1))
    images = [partial(image, case) for case in range(n_cases)]
    assert calibrate_on(images, name, terms, network, CPU) == (
        "batch-norm statistics estimated on 2 batches of this site's own images, "
        "without their labels"
    )
    return read, weights_of(network)


def test_at_most_sixteen_cases_are_read_each_once_in_their_order(config: RunConfig) -> None:
    read, _ = calibrated_on(agreement(config), 40)
    assert len(set(read)) == len(read) == 16
    assert read == sorted(read)
    assert read != list(range(16))  # drawn from all of them


@pytest.mark.parametrize("n_cases", [1, 5, 16])
def test_a_small_site_reads_all_its_cases(config: RunConfig, n_cases: int) -> None:
    assert calibrated_on(agreement(config), n_cases)[0] == list(range(n_cases))


def test_the_draw_is_the_same_every_time_and_another_one_at_another_site(
    config: RunConfig,
) -> None:
    terms = agreement(config)
    (one, first), (again, second) = calibrated_on(terms, 40), calibrated_on(terms, 40)
    assert one == again
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert calibrated_on(terms, 40, name="b")[0] != one


def test_without_batch_norm_no_case_is_read(config: RunConfig) -> None:
    def unread() -> Image:
        raise AssertionError("an image was read")

    terms = agreement(replace(config, model=replace(config.model, norm="instance")))
    assert calibrate_on([unread], "a", terms, terms.network(), CPU) == (
        "no running statistics: the network has no batch norm"
    )


# Patches for it


def test_patches_are_cut_from_anywhere_in_the_images() -> None:
    image = np.arange(4 * 5 * 6, dtype=np.float32).reshape(1, 4, 5, 6)
    found = random_patches([image], (2, 2, 2), 200, np.random.default_rng(1))
    assert found.dtype == np.float32
    assert found.shape == (200, 1, 2, 2, 2)
    corners = found[:, 0, 0, 0, 0]
    # first voxels of all 3 * 4 * 5 places; neighbours along (z, y, x) differ by 30, 6 and 1
    assert {corners.min(), corners.max()} == {0, 2 * 30 + 3 * 6 + 4}
    assert len(set(corners.tolist())) > 50
    steps = found[:, 0] - corners[:, None, None, None]
    assert (steps == np.array([[[0, 1], [6, 7]], [[30, 31], [36, 37]]])).all()


def test_the_same_generator_cuts_the_same_patches() -> None:
    images = [np.full((2, 5, 5, 5), value, np.float32) for value in range(4)]

    def cut(seed: int) -> Sequence[float]:
        rng = np.random.default_rng(seed)
        return random_patches(images, (3, 3, 3), 12, rng)[:, 0, 0, 0, 0].tolist()

    assert cut(1) == cut(1)
    assert cut(1) != cut(2)
    assert set(cut(1)) == {0, 1, 2, 3}


def test_a_small_image_is_padded_with_zeros() -> None:
    found = random_patches(
        [np.ones((1, 2, 4, 4), np.float32)], (4, 4, 4), 1, np.random.default_rng(1)
    )
    assert found[0, 0].sum(axis=(1, 2)).tolist() == [0, 16, 16, 0]


# Files


def layer_of(value: float) -> nn.BatchNorm3d:
    layer = nn.BatchNorm3d(2)
    layer.running_mean = torch.tensor([value, -value])
    layer.running_var = torch.tensor([value / 3, 2.0])
    layer.num_batches_tracked = torch.tensor(7)
    with torch.no_grad():
        layer.weight.fill_(value)
    return layer


def test_statistics_lie_below_their_run_and_method(tmp_path: Path) -> None:
    path = statistics_file(site(tmp_path), "run-1", "local-only", 12)
    assert path.relative_to(tmp_path).as_posix() == (
        "state/runs/run-1/batch-norm/local-only/round-0012.safetensors"
    )


def test_names_from_a_message_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(MessageError, match=r"run '\.\./x'"):
        statistics_file(site(tmp_path), "../x", "fedavg", 1)
    with pytest.raises(ValueError, match=r"method '\.\./x'"):
        statistics_file(site(tmp_path), "r", "../x", 1)


def test_local_tensors_come_back_bit_for_bit_and_the_others_stay(tmp_path: Path) -> None:
    source, target = nn.Sequential(layer_of(0.1)), nn.Sequential(layer_of(5.0))
    names = local_names(source, "local-statistics")
    path = statistics_file(site(tmp_path), "r", "fedavg", 1)
    save_local(path, source, names)
    load_local(path, target, names)
    found, expected = weights_of(target), weights_of(source)
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        assert found[name].tobytes() == expected[name].tobytes()
    assert found["0.weight"].tolist() == [5.0, 5.0]


def test_missing_statistics_are_said_and_never_replaced_by_another_methods(tmp_path: Path) -> None:
    network = nn.Sequential(layer_of(0.1))
    names = local_names(network, "local-statistics")
    path = statistics_file(site(tmp_path), "r", "fedavg", 1)
    assert load_local(path, network, names) is False
    save_local(statistics_file(site(tmp_path), "r", "fedprox", 1), network, names)
    assert load_local(path, network, names) is False


def test_a_site_that_missed_rounds_goes_on_from_its_last_one(tmp_path: Path) -> None:
    network = nn.Sequential(layer_of(0.1))
    names = local_names(network, "local-statistics")
    network[0].running_mean.fill_(5.0)
    save_local(statistics_file(site(tmp_path), "r", "fedavg", 1), network, names)
    network[0].running_mean.fill_(0.0)
    assert load_local(statistics_file(site(tmp_path), "r", "fedavg", 3), network, names) is True
    assert network[0].running_mean.tolist() == [5.0] * len(network[0].running_mean)


def test_damaged_statistics_are_named(tmp_path: Path) -> None:
    network = nn.Sequential(layer_of(0.1))
    names = local_names(network, "local-statistics")
    path = statistics_file(site(tmp_path), "r", "fedavg", 1)
    save_local(path, network, names)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(
        ConfigError, match=r"round-0001\.safetensors: expected batch-norm statistics"
    ):
        load_local(path, network, names)


def test_without_local_tensors_no_file_is_needed(tmp_path: Path) -> None:
    load_local(tmp_path / "absent", nn.Sequential(nn.GroupNorm(1, 2)), frozenset())


def kept(tmp_path: Path, *rounds: int) -> list[str]:
    network = nn.Sequential(layer_of(0.1))
    for round_ in rounds:
        path = statistics_file(site(tmp_path), "r", "fedavg", round_)
        save_local(path, network, local_names(network, "local-statistics"))
    return sorted(file.name for file in path.parent.iterdir())


def test_only_the_last_two_rounds_are_kept(tmp_path: Path) -> None:
    assert kept(tmp_path, 1) == ["round-0001.safetensors"]
    assert kept(tmp_path, 2, 3, 4) == ["round-0003.safetensors", "round-0004.safetensors"]


def test_a_round_that_is_asked_for_again_still_has_the_one_before(tmp_path: Path) -> None:
    assert kept(tmp_path, 1, 2, 3, 3) == ["round-0002.safetensors", "round-0003.safetensors"]


def test_a_run_that_starts_again_keeps_its_own_rounds(tmp_path: Path) -> None:
    kept(tmp_path, 8, 9)
    assert kept(tmp_path, 1) == ["round-0001.safetensors"]


def test_rounds_beyond_four_digits_are_kept(tmp_path: Path) -> None:
    assert "round-10000.safetensors" in kept(tmp_path, 9998, 9999, 10_000)
