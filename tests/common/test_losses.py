"""Loss terms, their places in a file, and how long a round is."""

from dataclasses import replace

import pytest

from common.codec import decode, encode
from common.config import Training
from common.errors import ConfigError
from common.federation import Federation
from common.losses import (
    NNUNET_LOSS,
    CrossEntropy,
    Dice,
    FocalTversky,
    Loss,
    TopK,
    Tversky,
    lower_bound,
)
from common.task import load_task


def test_without_a_word_the_loss_is_nnunets() -> None:
    assert (CrossEntropy(), Dice()) == NNUNET_LOSS
    assert Training.__dataclass_fields__["loss"].default == NNUNET_LOSS  # type: ignore[attr-defined]


def test_terms_survive_their_file() -> None:
    terms = (
        Dice(class_weights=(1.0, 2.0)),
        TopK(percent=10),
        FocalTversky(alpha=0.3, beta=0.7, gamma=0.75, weight=0.5),
    )
    assert decode(Loss, encode(terms), source="run.toml") == terms


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"term": "top-k"}, "0.percent: missing"),
        ({"term": "top-k", "percent": 0}, "0.percent: expected greater than 0, found 0"),
        ({"term": "dice", "gamma": 2}, "0.gamma: unknown key; "),
        ({"term": "focal", "gamma": 2, "weight": 0}, "0.weight: expected greater than 0, found 0"),
    ],
)
def test_a_fault_is_named_with_its_place(table: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(Loss, [table], source="run.toml")
    assert str(caught.value).startswith(f"run.toml: {fault}")


def test_no_loss_falls_below_its_bound() -> None:
    assert lower_bound(NNUNET_LOSS) == -1
    assert lower_bound((Dice(weight=0.5), Tversky(alpha=0.3, beta=0.7, weight=2))) == -2.5
    assert lower_bound((CrossEntropy(), FocalTversky(alpha=0.3, beta=0.7, gamma=0.75))) == 0


def test_a_sum_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError):
        decode(Loss, [], source="run.toml")


def federation(**length: object) -> Federation:
    plain = {"seed": 1, "methods": ["fedavg"], "rounds": 1, "held_out": [], "min_sites": 1}
    return decode(Federation, {**plain, **length}, source="run.toml")


@pytest.mark.parametrize(
    ("length", "n_cases", "n_steps"),
    [
        ({"local_steps": 24}, 7, 24),
        ({"local_epochs": 1}, 18, 2),  # batches of nine: as many patches as cases
        ({"local_epochs": 1}, 19, 3),
        ({"local_epochs": 2.5}, 18, 5),
        ({"local_epochs": 0.1}, 18, 1),
    ],
)
def test_an_epoch_draws_as_many_patches_as_there_are_cases(
    length: dict[str, object], n_cases: int, n_steps: int
) -> None:
    assert federation(**length).steps_per_round(n_cases, 9) == n_steps


@pytest.mark.parametrize(
    ("length", "found"), [({}, "neither"), ({"local_steps": 1, "local_epochs": 1}, "both")]
)
def test_a_round_has_one_length(length: dict[str, object], found: str) -> None:
    with pytest.raises(ConfigError, match=f"exactly one of local_steps.*found {found}"):
        federation(**length)


def test_there_is_one_class_weight_per_output(tiny_study) -> None:  # type: ignore[no-untyped-def]
    task = load_task("brats-2021")
    config = tiny_study.config

    def weighted(weights: tuple[float, ...]) -> None:
        loss = (Dice(class_weights=weights),)
        replace(config, training=replace(config.training, loss=loss)).check_task(task)

    weighted((1.0, 2.0, 3.0))
    with pytest.raises(ConfigError, match=r"dice: class_weights: expected 3 .*, found 4"):
        weighted((1.0, 2.0, 3.0, 4.0))
