"""Alarms: a table of rules over a run's facts and the time of day; same input, same alarms.

An alarm is there as long as its cause is. A finished run has none.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from annotated_types import Ge, Gt

from common.codec import record
from server.dashboard.facts import Facts, SiteFacts
from server.dashboard.members import BUDGET_STEPS
from server.dashboard.views import Alarm, Severity

RuleName = Literal[
    "site silent",
    "site failing",
    "run without events",
    "round cannot count",
    "loss diverging",
    "validation Dice falling",
    "budget nearly spent",
    "budget spent",
    "sum lost",
    "log unreadable",
    "disk nearly full",
    "webhook failing",
]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_S = 10 * 365 * 86400.0  # a log with such a pause would take a date out of the calendar


@record
class Limits:
    """What an alarm is raised at. The factors are conventions; the study lead may know better."""

    silent_factor: Annotated[float, Gt(0)] = 3.0
    """A site is silent when it takes so many times as long as it usually does,"""
    silent_floor_s: Annotated[float, Ge(0)] = 15 * 60.0
    """but not before that."""
    quiet_factor: Annotated[float, Gt(0)] = 3.0
    """A run is without events for so many times its longest pause so far,"""
    quiet_floor_s: Annotated[float, Ge(0)] = 3600.0
    """but not before that,"""
    quiet_start_s: Annotated[float, Ge(0)] = 24 * 3600.0
    """or that while nothing is known of its pauses: `join_timeout_s` of a federation."""
    failures_in_a_row: Annotated[int, Ge(1)] = 3
    least_free_bytes: Annotated[int, Ge(0)] = 10 * 2**30


class Found(NamedTuple):
    """An alarm that a rule raises, without what the rule itself says."""

    since: datetime
    text: str
    site: str = ""


Check = Callable[[Facts, datetime, Limits], Iterator[Found]]


class Rule(NamedTuple):
    """What raises an alarm, how bad that is, and why the rule is as it is."""

    check: Check
    severity: Severity
    reason: str


def alarms_of(run: str, facts: Facts, now: datetime, limits: Limits) -> tuple[Alarm, ...]:
    """Return the alarms of a run, the worst first.

    Args:
        run: its name.
        facts: of its log.
        now: the time of day.
        limits: what they are raised at.
    """
    if facts.is_finished:
        return ()
    alarms = [
        Alarm(name, rule.severity, run, found.site, found.since, found.text, rule.reason)
        for name, rule in RULES.items()
        for found in rule.check(facts, now, limits)
    ]
    return in_order(alarms)


def disk_alarm(free_bytes: int, since: datetime, limits: Limits) -> Alarm | None:
    """Return the alarm of a disk that is nearly full, or None.

    Args:
        free_bytes: of the disk with the folder of runs.
        since: when it was seen first.
        limits: what it is raised at.
    """
    if free_bytes >= limits.least_free_bytes:
        return None
    text = (
        f"The disk with the runs has {free_bytes / 2**30:.1f} GiB left; expected at least "
        f"{limits.least_free_bytes / 2**30:.1f} GiB."
    )
    reason = "a run that cannot write its checkpoint ends"
    return Alarm("disk nearly full", "critical", "", "", since, text, reason)


def in_order(alarms: list[Alarm]) -> tuple[Alarm, ...]:
    """Return alarms by severity, then by age."""
    order: dict[Severity, int] = {"critical": 0, "warning": 1, "info": 2}
    return tuple(sorted(alarms, key=lambda alarm: (order[alarm.severity], alarm.since, alarm.key)))


def silent_at(facts: Facts, site: SiteFacts, limits: Limits) -> datetime | None:
    """Return when a site counts as silent; None if it does not, or cannot be known to be asked."""
    waited = site.member.is_training and site.answered is None and site.member.awaited is None
    if not waited or site.usual_s is None or facts.began is None or facts.is_testing:
        return None
    if not (facts.has_rounds and facts.asks_all):
        return None
    wait_s = min(LONGEST_S, max(limits.silent_floor_s, limits.silent_factor * site.usual_s))
    return facts.began + timedelta(seconds=wait_s)


def quiet_at(facts: Facts, limits: Limits) -> datetime | None:
    """Return when a run counts as being without events; None for one that has not begun."""
    if facts.last is None:
        return None
    floor_s = limits.quiet_floor_s if facts.ended else limits.quiet_start_s
    wait_s = min(LONGEST_S, max(floor_s, limits.quiet_factor * facts.longest_gap_s))
    return facts.last + timedelta(seconds=wait_s)


def uncountable(facts: Facts) -> str:
    """Return why the round at hand cannot count any more, whoever answers; empty if it can."""
    training = [site for site in facts.sites if site.member.is_training]
    failed = [site.site for site in training if site.answered is False]
    if facts.settings.min_sites is None or not failed or facts.is_testing:
        return ""
    n_asked = min(len(training), facts.settings.sites_per_round or len(training))
    needed = max(1, min(facts.settings.min_sites, n_asked) - facts.settings.n_faulty)
    if n_asked - len(failed) >= needed or not facts.asks_all:
        return ""
    return (
        f"{len(failed)} of {n_asked} sites failed ({', '.join(failed)}); "
        f"good updates of at least {needed} are needed."
    )


def _silent(facts: Facts, now: datetime, limits: Limits) -> Iterator[Found]:
    for site in facts.sites:
        since = silent_at(facts, site, limits)
        if since is not None and since <= now and facts.began and site.usual_s is not None:
            text = (
                f"{site.site} was asked {_span(facts.began, now)} ago and has not answered; "
                f"it usually takes {_seconds(site.usual_s)}."
            )
            yield Found(facts.began, text, site.site)


def _failing(facts: Facts, _now: datetime, limits: Limits) -> Iterator[Found]:
    for site in facts.sites:
        member = site.member
        if member.has_left or member.n_in_a_row < limits.failures_in_a_row:
            continue
        since = member.failing_since or EPOCH
        text = f"{site.site} failed in {member.n_in_a_row} rounds in a row: {member.last_failure}"
        yield Found(since, text, site.site)


def _quiet(facts: Facts, now: datetime, limits: Limits) -> Iterator[Found]:
    since = quiet_at(facts, limits)
    if since is not None and since <= now and facts.last is not None:
        text = f"Nothing was logged for {_span(facts.last, now)}; "
        pause = f"the longest pause between rounds so far was {_seconds(facts.longest_gap_s)}."
        yield Found(since, text + (pause if facts.ended else "no round has finished yet."))


def _uncountable(facts: Facts, _now: datetime, _limits: Limits) -> Iterator[Found]:
    if (text := uncountable(facts)) and facts.began is not None:
        yield Found(facts.began, f"The round at hand cannot count: {text}")


def _diverging(facts: Facts, _now: datetime, _limits: Limits) -> Iterator[Found]:
    if facts.loss is not None:
        trend = facts.loss
        text = (
            f"The training loss of {facts.method} rises: {trend.now:.3g} now, "
            f"{trend.best:.3g} around round {trend.best_round}."
        )
        yield Found(facts.times["loss"], text)
    for site in facts.sites:
        failure = site.member.last_failure
        if site.member.failing_since and ("finite" in failure or "nan" in failure.split()):
            text = f"{site.site} sends values that are not finite: {failure}"
            yield Found(site.member.failing_since, text, site.site)


def _falling(facts: Facts, _now: datetime, _limits: Limits) -> Iterator[Found]:
    if facts.dice is not None:
        trend = facts.dice
        text = (
            f"The mean validation Dice of {facts.method} fell from {trend.best:.3f} after round "
            f"{trend.best_round} to {trend.now:.3f}."
        )
        yield Found(facts.times["dice"], text)


def _budget(step: int) -> Check:
    """Return the rule for one of `BUDGET_STEPS`; a site that passed the next one has only that."""

    def check(facts: Facts, _now: datetime, _limits: Limits) -> Iterator[Found]:
        for site in facts.sites:
            used, since = site.member.budget_used, site.member.budget_since[step]
            if used is None or since is None or any(site.member.budget_since[step + 1 :]):
                continue
            text = f"{site.site} has spent {used:.0%} of its privacy budget."
            yield Found(since, text, site.site)

    return check


def _lost(facts: Facts, _now: datetime, _limits: Limits) -> Iterator[Found]:
    if facts.lost is not None:
        round_, why = facts.lost
        yield Found(facts.times["lost"], f"The sum of round {round_} was lost: {why}")


def _unreadable(facts: Facts, _now: datetime, _limits: Limits) -> Iterator[Found]:
    if facts.n_unreadable:
        text = (
            f"{facts.n_unreadable} lines of the log cannot be read, the first is line "
            f"{facts.first_unreadable}; what they say is not counted."
        )
        yield Found(facts.first or EPOCH, text)


def _span(begin: datetime, end: datetime) -> str:
    return _seconds((end - begin).total_seconds())


def _seconds(seconds: float) -> str:
    """Return a duration with the unit that suits it."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


RULES: dict[RuleName, Rule] = {
    "site silent": Rule(
        _silent,
        "warning",
        "a site that takes three times its own median of the last 20 rounds is rarely just slow",
    ),
    "site failing": Rule(
        _failing,
        "warning",
        "one failure may be a restart; three in a row do not mend themselves",
    ),
    "run without events": Rule(
        _quiet,
        "critical",
        "a run logs every answer, so a pause three times longer than any before means that "
        "nothing answers",
    ),
    "round cannot count": Rule(
        _uncountable,
        "critical",
        "federation.min_sites of the configuration: with fewer good updates the run ends",
    ),
    "loss diverging": Rule(
        _diverging,
        "warning",
        "the median of 5 rounds lies above the best one by more than half of what was gained, "
        "4 deviations of the noise between rounds, and 0.05",
    ),
    "validation Dice falling": Rule(
        _falling,
        "warning",
        "0.1 of mean Dice on the same sites is several times what changes from round to round",
    ),
    "budget nearly spent": Rule(
        _budget(0),
        "warning",
        f"at {BUDGET_STEPS[0]:.0%} of its budget there is time to talk to the site",
    ),
    "budget spent": Rule(
        _budget(1), "critical", "a site whose budget is spent refuses every further round"
    ),
    "sum lost": Rule(_lost, "warning", "the updates of the round are gone, and what they cost"),
    "log unreadable": Rule(
        _unreadable,
        "warning",
        "a damaged disk, another program that wrote into the log, or another version of Consilium",
    ),
}
