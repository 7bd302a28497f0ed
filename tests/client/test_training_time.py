"""Epochs and hours of a day, on a clock that passes only when the test says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.policy import Policy
from client.site import SiteConfig
from client.training_time import counted, require_time_left, spent_today
from common.errors import PolicyError

NOON_S = 12 * 3600.0 + 20_000 * 86_400.0  # of some day in UTC, and the same day in most places


class Clock:
    def __init__(self) -> None:
        self.now = NOON_S

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - NOON_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    policy = Policy(
        metrics="cases",
        validation_means=True,
        pictures=False,
        fingerprint="exact",
        max_epochs_per_day=10.0,
        max_hours_per_day=1.0,
    )
    return SiteConfig(name="alpha", data="data", state=str(tmp_path / "state"), policy=policy)


def train(site: SiteConfig, clock: Clock, step_s: float, n_steps: int, n_epochs: float = 1.0):
    with counted(site, n_epochs, clock) as before_step:
        for _ in range(n_steps):
            before_step()
            clock.now += step_s


def left_by_a_crash(site: SiteConfig, clock: Clock, step_s: float, n_steps: int) -> float:
    """Return what the file says when the power goes after so many steps."""
    with counted(site, 1.0, clock) as before_step:
        for _ in range(n_steps):
            before_step()
            clock.now += step_s
        return spent_today(site, clock).seconds


def test_what_was_used_is_written_down_exactly_in_the_end(site, clock):
    train(site, clock, 2.0, 100)
    train(site, clock, 3.0, 100, n_epochs=0.5)
    spent = spent_today(site, clock)
    assert (spent.epochs, spent.seconds) == (1.5, 500.0)


@pytest.mark.parametrize("step_s", [0.1, 7.0, 59.0, 100.0])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 10, 35])
def test_a_crash_never_counts_too_little(site, clock, step_s: float, n_steps: int):
    used = step_s * n_steps
    site = replace(site, policy=replace(site.policy, max_hours_per_day=24.0))
    left = left_by_a_crash(site, clock, step_s, n_steps)
    assert used <= left <= used + max(600.0, 4 * step_s)


def test_epochs_count_before_the_first_step(site, clock):
    with counted(site, 4.0, clock):
        assert spent_today(site, clock).epochs == 4.0
    with pytest.raises(PolicyError, match=r"at most 10, found 4 today and 6\.5 asked for") as error:
        require_time_left(site, 6.5, clock)
    assert error.value.rule == "epochs"
    require_time_left(site, 6.0, clock)


def test_a_round_stops_when_the_days_time_is_over(site, clock):
    with pytest.raises(PolicyError) as error:
        train(site, clock, 600.0, 100)
    assert error.value.rule == "hours"
    assert spent_today(site, clock).seconds == 3600.0
    with pytest.raises(PolicyError, match=r"at most 1, found 1\.00 hours of training today"):
        require_time_left(site, 1.0, clock)


def test_the_next_day_begins_with_nothing(site, clock):
    train(site, clock, 600.0, 5, n_epochs=9.0)
    clock.now += 86_400.0
    require_time_left(site, 10.0, clock)
    assert spent_today(site, clock).seconds == 0.0


def test_time_after_midnight_is_of_the_new_day(site, clock):
    site = replace(site, policy=replace(site.policy, max_hours_per_day=24.0))
    train(site, clock, 3600.0, 20)  # from noon into the next morning
    assert 0 < spent_today(site, clock).seconds < 20 * 3600.0


def test_without_limits_nothing_is_written(site, clock):
    policy = replace(site.policy, max_epochs_per_day=None, max_hours_per_day=None)
    free = replace(site, policy=policy)
    train(free, clock, 1e6, 3)
    assert not free.state_folder.exists()
