"""A round that trains biases, norms and heads only: all else stays as it came, bit for bit."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.batches.patches import Batch
from client.device import Device
from client.policy import Policy
from client.privacy.private_step import Mechanism
from client.site import Agreement, SiteConfig
from client.training.drift import drift_file, load_drift
from client.training.local_training import LocalRound, train_locally
from client.training.optimizer_state import optimizer_file
from client.training.private_training import train_privately
from client.training.train import train
from common.axes import Weights
from common.codec import decode
from common.config import RunConfig
from common.messages import PrepareTask, TrainTask
from common.network import initial_weights, load_weights, weights_of
from common.planning.fingerprint import empty
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor
from common.task import Task

CPU = Device(torch.device("cpu"), torch.float32)
TASK = Task(
    name="toy",
    version=1,
    channels=("A",),
    labels={"background": 0, "one": 1},
    regions={"one": (1,)},
)
PLAN = Plan(
    schema=1,
    hash="0",
    rules="paper",
    planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=1, memory_gb=8.0),
    channels=("A",),
    transpose=(0, 1, 2),
    normalization=(Normalization(channel="A", scheme="z-score"),),
    configurations={
        "3d_fullres": Configuration(
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
    },
)
CONFIG: dict[str, Any] = {
    "task": "toy",
    "federation": {
        "seed": 1,
        "methods": ["fedavg"],
        "rounds": 2,
        "local_steps": 5,
        "held_out": [],
        "min_sites": 2,
    },
    "model": {
        "configuration": "3d_fullres",
        "norm": "group",
        "batch_norm": "local-statistics",
        "output": "labels",
        "base_features": 4,
        "deep_supervision": True,
        "start": {"run": "start", "method": "fedavg"},
    },
    "planning": {"rules": "paper", "memory_gb": 8},
    "training": {
        "optimizer": "adamw",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "schedule": {"name": "poly", "power": 0.9},
        "gradient_clip_norm": 12,
        "augmentation": {"preset": "none"},
        "validation_fraction": 0,
        "optimizer_state": "kept",
        "checkpoint_every_steps": 2,
        "trained": "biases-and-norms",
    },
    "evaluation": {
        "hd95": "pooled",
        "mirroring": False,
        "calibration_patches": 1,
        "ties": "min",
        "pictures": False,
    },
}
TRAINED = {
    *(f"{layer}.bias" for layer in ("up.0", "heads.0")),
    *(f"{s}.{i}.bias" for s in ("encoder.0", "encoder.1", "decoder.0") for i in (0, 1, 3, 4)),
    *(f"{s}.{i}.weight" for s in ("encoder.0", "encoder.1", "decoder.0") for i in (1, 4)),
    "heads.0.weight",
}


def round_at(folder: Path, weights: Weights, **task: object) -> LocalRound:
    terms = PrepareTask(
        run="r",
        task=TASK,
        config=decode(RunConfig, CONFIG, source="test"),
        fingerprint=empty(TASK),
        plan_hash="0",
    )
    policy = Policy(metrics="none", validation_means=False, pictures=False, fingerprint="exact")
    asked: dict[str, object] = {"run": "r", "plan_hash": "0", "method": "fedavg", "round": 1}
    return LocalRound(
        site=SiteConfig(name="a", data="data", state=str(folder), policy=policy),
        agreement=Agreement(terms=terms, plan=PLAN),
        task=TrainTask(**{**asked, "proximal_mu": 0.0, **task}),  # type: ignore[arg-type]
        weights=weights,
        n_cases=3,
    )


def patches(step: int) -> Batch:
    images = np.random.default_rng(step).standard_normal((2, 1, 8, 8, 8)).astype(np.float32)
    return Batch(images, (images[:, 0] > 0.5).astype(np.uint8))


def batches(first: int, n: int) -> Iterator[Batch]:
    return (patches(step) for step in range(first, first + n))


def received(wanted: Agreement) -> tuple[nn.Module, Weights]:
    network = wanted.network()
    load_weights(network, initial_weights(network, 1))
    return network, weights_of(network)


def begun(folder: Path, **task: object) -> tuple[LocalRound, nn.Module, Weights]:
    network, weights = received(round_at(folder, {}).agreement)
    return round_at(folder, weights, **task), network, weights


def changed(before: Weights, network: nn.Module) -> set[str]:
    after = weights_of(network)
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


@pytest.mark.parametrize("asked", [{}, {"proximal_mu": 0.5}, {"proximal_mu": 0.5, "dynamic": True}])
def test_only_biases_norms_and_heads_change(tmp_path: Path, asked: dict[str, object]) -> None:
    wanted, network, before = begun(tmp_path, **asked)
    assert train_locally(wanted, network, CPU, train, batches)[0] == 5
    assert changed(before, network) == TRAINED


def test_under_privacy_only_they_get_noise(tmp_path: Path) -> None:
    wanted, network, before = begun(tmp_path, proximal_mu=0.5)
    mechanism = Mechanism(
        clip_norm=0.5, noise_multiplier=1.0, expected_patients=2.0, patches_at_once=2
    )
    loop = partial(train_privately, mechanism=mechanism)

    def draws(first: int, n: int) -> Iterator[Iterator[Batch]]:
        return (iter([patches(step)]) for step in range(first, first + n))

    assert train_locally(wanted, network, CPU, loop, draws)[0] == 5
    assert changed(before, network) == TRAINED


def test_frozen_weights_have_no_drift(tmp_path: Path) -> None:
    wanted, network, _ = begun(tmp_path, proximal_mu=0.5, dynamic=True)
    train_locally(wanted, network, CPU, train, batches)
    kept = load_drift(drift_file(wanted.site, "r", "fedavg", 1), network)
    pairs = zip(network.named_parameters(), kept, strict=True)
    assert {name for (name, _), drift in pairs if drift.any()} == TRAINED


class KilledError(Exception):
    """The process ends here."""


def test_a_round_goes_on_after_a_crash_to_the_same_weights(tmp_path: Path) -> None:
    whole, network, _ = begun(tmp_path / "whole")
    result = train_locally(whole, network, CPU, train, batches)
    stopped, halfway, _ = begun(tmp_path / "stopped")

    def cut(first: int, n: int) -> Iterator[Batch]:
        yield from batches(first, 3)
        raise KilledError

    with pytest.raises(KilledError):
        train_locally(stopped, halfway, CPU, train, cut)
    steps = []

    def rest(first: int, n: int) -> Iterator[Batch]:
        steps.append((first, n))
        return batches(first, n)

    resumed, again, _ = begun(tmp_path / "stopped")
    assert train_locally(resumed, again, CPU, train, rest) == result
    assert steps == [(2, 3)]
    assert changed(weights_of(network), again) == set()


def test_momentum_of_the_next_round_goes_on(tmp_path: Path) -> None:
    first, network, _ = begun(tmp_path)
    train_locally(first, network, CPU, train, batches)
    assert optimizer_file(first.site, "r", "fedavg", 1).exists()
    weights = weights_of(network)
    kept = first.agreement.network()
    load_weights(kept, weights)
    second = replace(first, task=replace(first.task, round=2), weights=weights)
    train_locally(second, kept, CPU, train, batches)
    assert changed(weights, kept) == TRAINED
