"""What the report says about settings without effect or outside what was published."""

from dataclasses import replace
from typing import Any

import pytest

from common.augmentation import Augmentation
from common.config import Evaluation, Model, Planning, RunConfig, Training
from common.federation import Federation
from common.schedules import Poly
from server.remarks import remarks


def config(norm: str = "batch", **federation: Any) -> RunConfig:
    settings = {
        "seed": 1,
        "methods": ("fedavg",),
        "rounds": 1,
        "local_steps": 1,
        "held_out": (),
        "min_sites": 3,
        "n_faulty": 0,
        **federation,
    }
    model = Model(
        configuration="3d_fullres",
        norm="batch",
        batch_norm="shared",
        output="labels",
        base_features=4,
        deep_supervision=False,
    )
    return RunConfig(
        task="hippocampus",
        federation=Federation(**settings),
        model=replace(model, norm=norm),  # type: ignore[arg-type]
        planning=Planning(rules="paper", memory_gb=8),
        training=Training(
            optimizer="sgd",
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=0,
            schedule=Poly(power=0.9),
            gradient_clip_norm=12,
            augmentation=Augmentation(preset="none"),
            validation_fraction=0,
        ),
        evaluation=Evaluation(
            hd95="pooled", mirroring=False, calibration_patches=1, ties="min", pictures=False
        ),
    )


def test_an_ordinary_configuration_needs_no_remark() -> None:
    assert not list(remarks(config()))


def test_batch_norm_without_batch_norm_is_remarked() -> None:
    assert list(remarks(config(norm="group"))) == [
        "batch_norm = 'shared' has no effect: norm is group"
    ]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.4])
def test_a_published_fraction_needs_no_remark(fraction: float) -> None:
    assert not list(remarks(config(methods=("partial-sharing",), withheld_fraction=fraction)))


def test_a_larger_fraction_is_remarked_where_the_method_is_used() -> None:
    used = config(methods=("fedavg", "partial-sharing"), withheld_fraction=0.41)
    assert list(remarks(used)) == [
        "withheld_fraction = 0.41 is outside the published range of partial sharing, 0 to 0.4"
    ]
    assert not list(remarks(config(withheld_fraction=0.9)))


def test_the_few_steps_of_a_small_root_set_are_remarked() -> None:
    (text,) = remarks(config(methods=("trust",), root_site="r", local_steps=None, local_epochs=1.0))
    assert "a root site with few cases takes few steps" in text
    assert not list(remarks(config(methods=("trust",), root_site="r")))


def test_methods_that_count_every_site_once_do_not_heed_the_weighting() -> None:
    methods = ("fedavg", "median", "krum")
    assert list(remarks(config(methods=methods, weighting="uniform"))) == [
        "weighting = 'uniform' has no effect on median, krum: every site counts once, or alone"
    ]
    assert not list(remarks(config(methods=methods)))
