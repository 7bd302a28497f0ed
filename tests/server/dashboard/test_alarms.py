"""Alarms: raised by their cause, gone with it, and the same for the same input."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from common.privacy.mechanism import Spent
from server.dashboard.alarms import RULES, Limits, alarms_of, disk_alarm
from server.dashboard.facts import Facts, facts_of
from server.dashboard.method_rounds import Curve
from server.dashboard.run_data import RunData, add_event
from server.dashboard.run_settings import RunSettings
from server.dashboard.trends import falling_dice, rising_loss
from server.dashboard.views import Alarm
from server.events import (
    Event,
    Note,
    PlanMade,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SiteLeft,
    SiteTrained,
    SiteValidated,
    SumLost,
    SumOpened,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = RunSettings(methods=("fedavg",), n_rounds=40, min_sites=2)
LIMITS = Limits()
SITES = ("a", "b", "c")
BEFORE: tuple[Event, ...] = (
    RunStarted(
        run="r", task="t", methods=("fedavg",), seed=1, resumed=False, versions={}, device="CPU"
    ),
    *(SiteJoined(site=site, role="training", n_cases=9) for site in SITES),
    PlanMade(plan_hash="0", n_cases=27, limits=()),
)


class Story:
    """A run whose sites answer 5, 6 and 7 minutes after a round began; a round takes 8."""

    def __init__(self, settings: RunSettings = SETTINGS) -> None:
        self.data, self.settings, self.now = RunData(), settings, NOON
        for event in BEFORE:
            add_event(self.data, NOON, event)

    def after(self, minutes: float, event: Event) -> None:
        add_event(self.data, self.now + timedelta(minutes=minutes), event)

    def round(
        self,
        number: int,
        *,
        loss: float = 0.5,
        dice: float = 0.5,
        failing: str = "",
        spent: float | None = None,
    ) -> None:
        for n, site in enumerate(SITES):
            if site == failing:
                self.after(1, fail(site, number))
                continue
            self.after(
                5 + n,
                SiteValidated(method="fedavg", round=number - 1, site=site, dice={"WT": dice}),
            )
            privacy = Spent(epsilon=1.0, delta=1e-5, budget_used=spent) if spent else None
            self.after(5 + n, train(site, number, loss=loss, spent=privacy))
        self.end(number)

    def end(self, number: int) -> None:
        self.now += timedelta(minutes=8)
        add_event(
            self.data,
            self.now,
            RoundFinished(method="fedavg", round=number, n_sites=3, seconds=480.0),
        )

    @property
    def facts(self) -> Facts:
        return facts_of(self.data, self.settings)

    def alarms(self, minutes: float = 0) -> list[tuple[str, str]]:
        return [(alarm.rule, alarm.site) for alarm in self.full(minutes)]

    def full(self, minutes: float = 0) -> tuple[Alarm, ...]:
        return alarms_of("r", self.facts, self.now + timedelta(minutes=minutes), LIMITS)


def train(site: str, round_: int, loss: float = 0.5, spent: Spent | None = None) -> SiteTrained:
    return SiteTrained(
        method="fedavg",
        round=round_,
        site=site,
        n_cases=9,
        n_steps=1,
        loss=loss,
        update_norm=1.0,
        seconds=100.0,
        upload_bytes=1,
        spent=spent,
    )


def fail(site: str, round_: int, reason: str = "why") -> SiteFailed:
    return SiteFailed(method="fedavg", round=round_, site=site, code="data", reason=reason)


def test_a_run_that_goes_well_has_none() -> None:
    story = Story()
    for n in range(1, 20):
        story.round(n)
    assert story.alarms() == []
    assert story.alarms(minutes=14) == []


def test_a_site_is_silent_after_three_times_its_usual_time() -> None:
    story = Story()
    for n in (1, 2):
        story.round(n)
    story.after(5, train("a", 3))
    assert story.alarms(17) == []
    assert story.alarms(18.1) == [("site silent", "b")]  # three times 6 minutes
    assert story.alarms(21.1) == [("site silent", "b"), ("site silent", "c")]
    (alarm,) = story.full(18.1)
    assert alarm.since == story.now
    assert alarm.text == "b was asked 18.1 min ago and has not answered; it usually takes 6.0 min."
    story.after(22, train("b", 3))
    assert story.alarms(22.1) == [("site silent", "c")]


def test_silence_has_a_floor_for_quick_sites() -> None:
    story = Story()
    story.round(1)
    slow = Limits(silent_floor_s=3600.0, quiet_floor_s=7200.0)
    at = story.now + timedelta(minutes=59)
    assert alarms_of("r", story.facts, at, slow) == ()
    assert len(alarms_of("r", story.facts, at + timedelta(minutes=1), slow)) == 3


@pytest.mark.parametrize(
    "event",
    [
        SiteLeft(site="b"),
        SiteExcluded(method="fedavg", round=1, site="b", reason="failed"),
        fail("b", 2),
        RunFinished(seconds=1.0, peak_memory_bytes=1),
    ],
)
def test_a_site_that_is_not_waited_for_is_not_silent(event: Event) -> None:
    story = Story()
    story.round(1)
    assert ("site silent", "b") in story.alarms(50)
    story.after(1, event)
    assert ("site silent", "b") not in story.alarms(50)


@pytest.mark.parametrize(
    "settings",
    [
        RunSettings(methods=("fedavg",), n_rounds=40, sites_per_round=2),
        RunSettings(methods=("cyclic",), n_rounds=40),
    ],
)
def test_nobody_is_silent_where_it_is_not_known_who_is_asked(settings: RunSettings) -> None:
    story = Story(settings)
    story.round(1)
    silent = [site for rule, site in story.alarms(50) if rule == "site silent"]
    assert silent == ([] if settings.sites_per_round else ["a", "b", "c"])  # fedavg is at hand
    story.data.course.method = settings.methods[0]
    assert [site for rule, site in story.alarms(50) if rule == "site silent"] == []


def test_a_run_is_quiet_after_three_times_its_longest_pause() -> None:
    story = Story()
    assert story.alarms(23 * 60) == []
    assert ("run without events", "") in story.alarms(24 * 60)
    story.round(1)
    story.round(2)
    assert ("run without events", "") not in story.alarms(59)
    assert ("run without events", "") in story.alarms(60)
    story.after(60, Note(text="awake"))
    assert ("run without events", "") not in story.alarms(61)
    assert ("run without events", "") not in story.alarms(60 + 179)
    assert ("run without events", "") in story.alarms(60 + 180)  # its longest pause was an hour


def test_a_pause_before_a_resumption_is_not_usual() -> None:
    story = Story()
    story.round(1)
    story.after(60 * 24 * 7, BEFORE[0])
    assert story.data.course.longest_gap_s == 0


def test_three_failures_in_a_row_are_told_until_a_good_answer() -> None:
    story = Story()
    for n in (1, 2):
        story.round(n, failing="c")
    assert story.alarms() == []
    story.round(3, failing="c")
    assert story.alarms() == [("site failing", "c")]
    (alarm,) = story.full()
    assert alarm.text == "c failed in 3 rounds in a row: data: why"
    assert alarm.since == NOON + timedelta(minutes=1)
    story.round(4)
    assert story.alarms() == []


def test_values_that_are_not_finite_diverge() -> None:
    story = Story()
    story.after(1, fail("a", 1, "weights: conv: expected finite values"))
    assert ("loss diverging", "a") in story.alarms()
    story.after(2, train("a", 1))
    assert story.alarms() == []


def test_a_round_that_cannot_count_any_more_is_told_at_once() -> None:
    story = Story()
    story.after(1, fail("a", 1))
    assert story.alarms() == []
    story.after(2, fail("b", 1))
    assert story.alarms() == [("round cannot count", "")]
    (alarm,) = story.full()
    assert alarm.severity == "critical"
    assert alarm.text == (
        "The round at hand cannot count: 2 of 3 sites failed (a, b); "
        "good updates of at least 2 are needed."
    )
    story.after(3, BEFORE[0])  # resumed
    assert story.alarms() == []


def test_methods_that_withstand_faulty_sites_need_fewer() -> None:
    story = Story(RunSettings(methods=("fedavg",), n_rounds=4, min_sites=2, n_faulty=1))
    story.after(1, fail("a", 1))
    story.after(1, fail("b", 1))
    assert story.alarms() == []


def test_a_rising_loss_is_told_and_its_recovery_ends_it() -> None:
    story = Story()
    for n in range(1, 16):
        story.round(n, loss=1.0 / n)
    assert story.alarms() == []
    for n in range(16, 22):
        story.round(n, loss=1.5)
    assert story.alarms() == [("loss diverging", "")]
    (alarm,) = story.full()
    assert alarm.since == NOON + timedelta(minutes=8 * 18)  # three of five rounds are bad
    assert alarm.text == "The training loss of fedavg rises: 1.5 now, 0.0769 around round 15."
    for n in range(22, 26):
        story.round(n, loss=0.05)
    assert story.alarms() == []


def test_the_noise_of_a_loss_is_no_rise() -> None:
    rng = np.random.default_rng(0)
    for scale in (0.01, 0.1, 1.0):
        for _ in range(200):
            values = np.exp(-np.arange(60) / 10) + scale * rng.normal(size=60)
            assert rising_loss(Curve(np.arange(1, 61), values)) is None


@pytest.mark.parametrize("last", [np.inf, np.nan, -np.inf])
def test_a_loss_that_is_not_finite_is_told_at_once(last: float) -> None:
    found = rising_loss(Curve(np.array([1, 2]), np.array([0.5, last])))
    assert found is not None
    assert found.since_round == 2


def test_a_falling_dice_is_told_when_its_round_is_complete() -> None:
    story = Story()
    for n in range(1, 5):
        story.round(n, dice=0.1 * n)
    story.after(5, SiteValidated(method="fedavg", round=4, site="a", dice={"WT": 0.2}))
    assert story.alarms() == []
    story.round(5, dice=0.2)
    assert story.alarms() == [("validation Dice falling", "")]
    (alarm,) = story.full()
    assert alarm.text == (
        "The mean validation Dice of fedavg fell from 0.400 after round 3 to 0.200."
    )
    assert alarm.since == NOON + timedelta(minutes=8 * 4)
    story.round(6, dice=0.35)
    assert story.alarms() == []


def test_a_site_that_leaves_does_not_make_the_dice_fall() -> None:
    dice = np.array([[0.9, 0.3], [0.9, 0.3], [np.nan, 0.3]])
    assert falling_dice(dice, np.arange(1, 4)) is None
    dice[2, 1] = 0.1
    found = falling_dice(dice, np.arange(1, 4))
    assert found is not None
    assert (found.since_round, found.best_round) == (3, 1)


def test_budgets_are_told_at_80_and_at_100_per_cent() -> None:
    story = Story()
    story.round(1, spent=0.79)
    assert story.alarms() == []
    story.round(2, spent=0.8)
    assert story.alarms() == [("budget nearly spent", site) for site in SITES]
    assert story.full()[0].text == "a has spent 80% of its privacy budget."
    assert story.full()[0].since == NOON + timedelta(minutes=8 + 5)
    story.round(3, spent=1.0)
    assert story.alarms() == [("budget spent", site) for site in SITES]


def test_a_lost_sum_is_told_until_one_is_opened() -> None:
    story = Story()
    story.after(1, SumLost(method="fedavg", round=1, reason="2 of 3 helped"))
    assert story.alarms() == [("sum lost", "")]
    assert story.full()[0].text == "The sum of round 1 was lost: 2 of 3 helped"
    story.after(
        2,
        SumOpened(method="fedavg", round=2, sites=SITES, count=3, update_norm=1.0, seconds=1.0),
    )
    assert story.alarms() == []


def test_lines_that_cannot_be_read_are_told() -> None:
    story = Story()
    story.data.n_unreadable = 2
    assert story.alarms() == [("log unreadable", "")]


def test_a_full_disk_is_told_with_what_is_left() -> None:
    assert disk_alarm(10 * 2**30, NOON, LIMITS) is None
    found = disk_alarm(3 * 2**29, NOON, LIMITS)
    assert found is not None
    assert found.severity == "critical"
    assert found.text == ("The disk with the runs has 1.5 GiB left; expected at least 10.0 GiB.")


def test_a_finished_run_has_none_and_the_worst_come_first() -> None:
    story = Story()
    story.round(1, spent=0.9)
    story.after(1, fail("a", 2))
    story.after(1, fail("b", 2))
    found = story.full()
    assert [alarm.severity for alarm in found] == ["critical", "warning", "warning", "warning"]
    assert found == story.full()
    story.after(2, RunFinished(seconds=1.0, peak_memory_bytes=1))
    assert story.alarms(10**6) == []


def test_every_rule_says_why_it_is_as_it_is() -> None:
    assert all(len(rule.reason) > 20 for rule in RULES.values())
