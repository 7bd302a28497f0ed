"""What a site counts in a mean, and what it cannot make itself count."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from common.config import RunConfig
from common.errors import ConfigError, MessageError
from common.federation import Federation, Weighting
from common.messages import Update
from common.planning.plan import Plan
from server.weighting import count_of, require_countable

Make = Callable[..., RunConfig]


@pytest.fixture
def plan(toy_plan: Plan) -> Plan:
    """Return a plan of batches of 4."""
    trained = replace(toy_plan.configurations["3d_fullres"], batch_size=4)
    return replace(toy_plan, configurations={"3d_fullres": trained})


@pytest.fixture
def config(toy_config: Make) -> Make:
    """Return what makes a configuration with a weighting and a length of rounds."""

    def make(
        weighting: Weighting, local_steps: int | None = None, local_epochs: float | None = None
    ) -> RunConfig:
        return toy_config(weighting=weighting, local_steps=local_steps, local_epochs=local_epochs)

    return make


def update(n_cases: int, n_steps: int) -> Update:
    return Update(round=1, n_cases=n_cases, n_steps=n_steps, loss=0.5, seconds=1.0)


def test_cases_count_unless_the_configuration_says_otherwise(config: Make, plan: Plan) -> None:
    assert Federation.__dataclass_fields__["weighting"].default == "cases"
    assert count_of(update(30, 7), config("cases", local_steps=7), plan) == 30


def test_uniform_weighting_counts_every_site_once(config: Make, plan: Plan) -> None:
    assert count_of(update(30, 7), config("uniform", local_steps=7), plan) == 1


@pytest.mark.parametrize(("n_cases", "n_steps"), [(1, 1), (4, 2), (5, 3), (10, 5)])
def test_steps_of_epochs_count_one_by_one(
    config: Make, plan: Plan, n_cases: int, n_steps: int
) -> None:
    # two epochs in batches of 4: ceil(2 n / 4)
    assert count_of(update(n_cases, n_steps), config("steps", local_epochs=2), plan) == n_steps


@pytest.mark.parametrize("n_cases", [1, 30])
def test_the_same_number_of_steps_everywhere_counts_as_one(
    config: Make, plan: Plan, n_cases: int
) -> None:
    assert count_of(update(n_cases, 250), config("steps", local_steps=250), plan) == 1


@pytest.mark.parametrize("n_steps", [0, 4, 6, 5000])
@pytest.mark.parametrize("length", [{"local_steps": 5}, {"local_epochs": 2.0}])
def test_no_site_gains_weight_by_claiming_other_steps(
    config: Make, plan: Plan, n_steps: int, length: dict[str, float]
) -> None:
    with pytest.raises(
        MessageError, match=f"n_steps: expected 5 of a site with 10 cases, found {n_steps}"
    ):
        count_of(update(10, n_steps), config("steps", **length), plan)


def test_more_steps_than_a_mean_can_hold_are_refused_before_training(
    config: Make, plan: Plan
) -> None:
    # 512 epochs in batches of 4: 128 steps per case, and 2**17 steps are 1024 cases
    wanted = config("steps", local_epochs=512)
    require_countable(wanted, plan, [1000, 24])
    with pytest.raises(
        ConfigError, match=r"at most 131072 steps of all sites in a round.*, found 131200"
    ):
        require_countable(wanted, plan, [1000, 25])


@pytest.mark.parametrize(
    ("weighting", "length"),
    [
        ("cases", {"local_epochs": 512}),
        ("uniform", {"local_epochs": 512}),
        ("steps", {"local_steps": 10_000}),
    ],
)
def test_other_counts_always_fit(
    config: Make, plan: Plan, weighting: Weighting, length: dict[str, int]
) -> None:
    require_countable(config(weighting, **length), plan, [100_000, 31_072])
