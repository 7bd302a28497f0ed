"""What a site counts in a mean, and what it cannot make itself count."""

import pytest

from common.augmentation import Augmentation
from common.config import Evaluation, Model, Planning, RunConfig, Training
from common.errors import ConfigError, MessageError
from common.federation import Federation, Weighting
from common.messages import Update
from common.planning.plan import Configuration, Normalization, Plan, PlannedFor
from common.schedules import Poly
from server.weighting import count_of, require_countable

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
            batch_size=4,
            strides=((2, 2, 2),),
            kernel_sizes=((3, 3, 3), (3, 3, 3)),
            features_per_stage=(4, 4),
            batch_dice=False,
            deep_supervision_weights=(1.0,),
        )
    },
)


def config(
    weighting: Weighting, local_steps: int | None = None, local_epochs: float | None = None
) -> RunConfig:
    return RunConfig(
        task="hippocampus",
        federation=Federation(
            seed=1,
            methods=("fedavg",),
            rounds=1,
            local_steps=local_steps,
            local_epochs=local_epochs,
            held_out=(),
            min_sites=1,
            weighting=weighting,
        ),
        model=Model(
            configuration="3d_fullres",
            norm="instance",
            batch_norm="shared",
            output="labels",
            base_features=4,
            deep_supervision=False,
        ),
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


def update(n_cases: int, n_steps: int) -> Update:
    return Update(round=1, n_cases=n_cases, n_steps=n_steps, loss=0.5, seconds=1.0)


def test_cases_count_unless_the_configuration_says_otherwise() -> None:
    assert Federation.__dataclass_fields__["weighting"].default == "cases"
    assert count_of(update(30, 7), config("cases", local_steps=7), PLAN) == 30


def test_uniform_weighting_counts_every_site_once() -> None:
    assert count_of(update(30, 7), config("uniform", local_steps=7), PLAN) == 1


@pytest.mark.parametrize(("n_cases", "n_steps"), [(1, 1), (4, 2), (5, 3), (10, 5)])
def test_steps_of_epochs_count_one_by_one(n_cases: int, n_steps: int) -> None:
    # two epochs in batches of 4: ceil(2 n / 4)
    assert count_of(update(n_cases, n_steps), config("steps", local_epochs=2), PLAN) == n_steps


@pytest.mark.parametrize("n_cases", [1, 30])
def test_the_same_number_of_steps_everywhere_counts_as_one(n_cases: int) -> None:
    assert count_of(update(n_cases, 250), config("steps", local_steps=250), PLAN) == 1


@pytest.mark.parametrize("n_steps", [0, 4, 6, 5000])
@pytest.mark.parametrize("length", [{"local_steps": 5}, {"local_epochs": 2.0}])
def test_no_site_gains_weight_by_claiming_other_steps(
    n_steps: int, length: dict[str, float]
) -> None:
    with pytest.raises(
        MessageError, match=f"n_steps: expected 5 of a site with 10 cases, found {n_steps}"
    ):
        count_of(update(10, n_steps), config("steps", **length), PLAN)  # type: ignore[arg-type]


def test_more_steps_than_a_mean_can_hold_are_refused_before_training() -> None:
    # 512 epochs in batches of 4: 128 steps per case, and 2**17 steps are 1024 cases
    wanted = config("steps", local_epochs=512)
    require_countable(wanted, PLAN, [1000, 24])
    with pytest.raises(
        ConfigError, match=r"at most 131072 steps of all sites in a round.*, found 131200"
    ):
        require_countable(wanted, PLAN, [1000, 25])


@pytest.mark.parametrize(
    "wanted",
    [
        config("cases", local_epochs=512),
        config("uniform", local_epochs=512),
        config("steps", local_steps=10_000),
    ],
)
def test_other_counts_always_fit(wanted: RunConfig) -> None:
    require_countable(wanted, PLAN, [100_000, 31_072])
