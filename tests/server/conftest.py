"""A toy experiment for the coordinator's own tests: two channels of nothing, one small network."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from common.codec import decode
from common.config import RunConfig
from common.messages import Measured
from common.planning.fingerprint import empty
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor
from common.task import Task
from server.event_log import EventLog
from server.events import Note
from server.experiment import Experiment
from server.planning.cohort import Cohort
from server.run_folder import RunFolder
from server.sites import Sites

TOY = Task(
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
    planned_for=PlannedFor(n_training_cases=20, n_foreground_classes=3, memory_gb=8.0),
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
        "rounds": 1,
        "local_steps": 1,
        "held_out": [],
        "min_sites": 2,
    },
    "model": {
        "configuration": "3d_fullres",
        "norm": "instance",
        "batch_norm": "local-statistics",
        "output": "labels",
        "base_features": 4,
        "deep_supervision": False,
    },
    "planning": {"rules": "paper", "memory_gb": 8},
    "training": {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 0,
        "schedule": {"name": "poly", "power": 0.9},
        "gradient_clip_norm": 12,
        "augmentation": {"preset": "none"},
        "validation_fraction": 0,
    },
    "evaluation": {
        "hd95": "pooled",
        "mirroring": False,
        "calibration_patches": 1,
        "ties": "min",
        "pictures": False,
    },
}


@pytest.fixture
def toy_plan() -> Plan:
    """Return a plan of patches of 8 x 8 x 8 voxels in batches of 2."""
    return PLAN


@pytest.fixture
def toy_config() -> Callable[..., RunConfig]:
    """Return what makes a configuration for that plan, with changes of [model] and [federation]."""

    def make(model: Mapping[str, object] | None = None, **federation: object) -> RunConfig:
        changed = {
            "model": {**CONFIG["model"], **(model or {})},
            "federation": {**CONFIG["federation"], **federation},
        }
        return decode(RunConfig, {**CONFIG, **changed}, source="test")

    return make


@pytest.fixture
def declared() -> Callable[[str, int], Measured]:
    """Return what makes a site's words before planning: cases of 8 x 8 x 8 voxels of 1 mm."""

    def declare(site: str, n_cases: int) -> Measured:
        fingerprint = replace(
            empty(TOY),
            n_cases=n_cases,
            shapes_voxels=({8: n_cases},) * 3,
            spacings_ticks=({10_000: n_cases},) * 3,
            extents_ticks=({80_000: n_cases},) * 3,
        )
        return Measured(site=site, fingerprint=fingerprint, version=version("consilium"))

    return declare


@pytest.fixture
def toy_experiment(
    declared: Callable[[str, int], Measured],
    toy_plan: Plan,
    toy_config: Callable[..., RunConfig],
) -> Callable[..., Experiment]:
    """Return what makes an experiment of sites that declared so many cases."""

    def make(
        folder: Path, sites: Sites, n_cases: Mapping[str, int], **federation: object
    ) -> Experiment:
        run = RunFolder(folder / "run")
        log = EventLog(run.events)
        log.append(Note(text="a run begins"))
        return Experiment(
            config=toy_config(**federation),
            task=TOY,
            plan=toy_plan,
            cohort=Cohort(
                training={site: declared(site, n) for site, n in sorted(n_cases.items())},
                held_out={},
            ),
            folder=run,
            sites=sites,
            log=log,
        )

    return make
