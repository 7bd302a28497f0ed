"""How learning rates run over a run, and how a file names that."""

import pytest

from common.codec import decode, encode
from common.errors import ConfigError
from common.schedules import (
    Constant,
    Cosine,
    Plateau,
    Poly,
    Schedule,
    Steps,
    plateau_factor,
    share_of_rate,
)

PLATEAU = Plateau(factor=0.1, patience_rounds=1)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Constant(), [1, 1, 1, 1]),
        (Poly(power=1.0), [1, 0.75, 0.5, 0.25]),
        (Cosine(), [1, 0.853553, 0.5, 0.146447]),
        (Cosine(warmup=0.5, final=0.2), [0, 0.5, 1, 0.6]),
        (Steps(factor=0.1, at=(0.5, 0.75)), [1, 1, 0.1, 0.01]),
        (PLATEAU, [1, 1, 1, 1]),
    ],
    ids=lambda given: getattr(given, "name", ""),
)
def test_the_share_of_the_rate_at_the_quarters_of_a_run(
    schedule: Schedule, shares: list[float]
) -> None:
    found = [share_of_rate(schedule, progress) for progress in (0.0, 0.25, 0.5, 0.75)]
    assert found == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        ([], 1.0),
        ([0.5], 1.0),
        ([0.5, 0.4, 0.3], 1.0),
        ([0.5, 0.6], 1.0),  # one round is waited for
        ([0.5, 0.6, 0.5], 0.1),
        ([0.5, 0.6, 0.4, 0.5], 1.0),  # better than the best begins anew
        ([0.5, 0.6, 0.7, 0.6, 0.5], 0.01),
        ([0.5, 0.49995, 0.4999], 0.1),  # less than 0.0001 at a time is no improvement
        ([0.5] * 20, 0.001),  # the floor
    ],
)
def test_a_plateau_lowers_the_rate(losses: list[float], factor: float) -> None:
    assert plateau_factor(PLATEAU, losses) == pytest.approx(factor)


def test_other_schedules_know_no_plateau() -> None:
    assert plateau_factor(Poly(power=0.9), [0.5] * 20) == 1.0


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Poly(power=0.9), Cosine(warmup=0.1), Steps(factor=0.1, at=(0.5,)), PLATEAU],
)
def test_a_schedule_survives_its_file(schedule: Schedule) -> None:
    assert decode(Schedule, encode(schedule), source="run.toml") == schedule


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match="poly"):
        decode(Schedule, {"name": "polly", "power": 0.9}, source="run.toml")


def test_a_key_of_another_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: warmup: unknown key"):
        decode(Schedule, {"name": "poly", "power": 0.9, "warmup": 0.1}, source="run.toml")
