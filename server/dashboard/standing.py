"""Where a run stands at a time of day: its state, its progress, its line in the table."""

from collections.abc import Sequence
from datetime import datetime

from server.dashboard.alarms import Limits, quiet_at, silent_at, uncountable
from server.dashboard.facts import Facts, SiteFacts
from server.dashboard.members import Member
from server.dashboard.views import (
    Alarm,
    Phase,
    Progress,
    RunState,
    RunSummary,
    SiteState,
)

SHOWN_SITES = 5  # by name, of those that are waited for


def summary_of(
    name: str,
    facts: Facts,
    alarms: Sequence[Alarm],
    now: datetime,
    limits: Limits,
    revision: int,
) -> RunSummary:
    """Return a run's line.

    Args:
        name: of the run.
        facts: of its log.
        alarms: of the run at `now`, the worst first.
        now: the time of day.
        limits: what alarms are raised at.
        revision: of the line.
    """
    state, reason = state_of(facts, now, limits)
    training = [site for site in facts.sites if site.member.is_training]
    spent = [site.member.spent.epsilon for site in facts.sites if site.member.spent]
    used = [site.member.budget_used for site in facts.sites if site.member.budget_used is not None]
    method = facts.method
    seconds = (facts.last - facts.first).total_seconds() if facts.last and facts.first else None
    return RunSummary(
        name=name,
        state=state,
        reason=reason,
        task=facts.task,
        methods=facts.methods,
        method=method,
        round=dict(facts.ended).get(method, 0),
        n_rounds=facts.settings.n_rounds,
        n_sites=len(training),
        n_held_out=sum(site.member.is_held_out for site in facts.sites),
        best=facts.best,
        epsilon=max(spent, default=None),
        budget_used=max(used, default=None),
        site_epsilon=facts.site_epsilon,
        upload_bytes=facts.upload_bytes,
        download_bytes=facts.download_bytes,
        started=facts.first,
        last_event=facts.last,
        seconds=seconds,
        progress=progress_of(facts, now),
        n_alarms=len(alarms),
        worst=alarms[0].severity if alarms else None,
        n_unreadable=facts.n_unreadable,
        revision=revision,
    )


def state_of(facts: Facts, now: datetime, limits: Limits) -> tuple[RunState, str]:
    """Return the state of a run and why it is in it."""
    if not facts.n_events or not facts.has_rounds:
        return _state_before_rounds(facts)
    if facts.is_finished:
        return "finished", ""
    if why := uncountable(facts):
        return "failed", why
    quiet = quiet_at(facts, limits)
    if quiet is not None and quiet <= now:
        return "stalled", f"nothing was logged since {facts.last:%Y-%m-%d %H:%M} UTC"
    return "running", waits_for(facts)


def _state_before_rounds(facts: Facts) -> tuple[RunState, str]:
    if facts.n_unreadable and not facts.n_events:
        return "unreadable", f"none of the {facts.n_unreadable} lines of its log can be read"
    if not facts.n_events:
        return "waiting", "it has not started: its log is empty"
    return ("finished", "") if facts.is_finished else ("waiting", _waits_before_rounds(facts))


def phase_of(facts: Facts) -> Phase:
    """Return what a run does."""
    if facts.is_finished:
        return "finished"
    if facts.is_testing or _rounds_left(facts) == 0:
        return "testing"
    if facts.has_rounds:
        return "rounds"
    return "planning" if not _n_missing(facts) else "joining"


def progress_of(facts: Facts, now: datetime) -> Progress:
    """Return how far a run is, all methods counted; a method that ended early counts whole."""
    per_method, left = facts.settings.n_rounds, _rounds_left(facts)
    phase = phase_of(facts)
    n_rounds = per_method * len(facts.methods) if per_method is not None else None
    n_done = sum(round_ for _, round_ in facts.ended)
    if n_rounds is not None and left is not None:
        n_done = n_rounds - left
    left_s = None
    if phase in {"testing", "finished"}:
        left_s = 0.0
    elif left is not None and facts.round_s is not None and facts.began is not None:
        elapsed_s = max(0.0, (now - facts.began).total_seconds())
        left_s = left * facts.round_s - min(elapsed_s, facts.round_s)
    return Progress(phase, n_done, n_rounds, facts.round_s, left_s, _words(facts, phase))


def waits_for(facts: Facts) -> str:
    """Return whom a run that has not finished waits for, in words; empty if nobody."""
    if not facts.has_rounds:
        return _waits_before_rounds(facts)
    if facts.is_testing or not facts.asks_all:
        return ""
    training = [site for site in facts.sites if site.member.is_training]
    names = [site.site for site in training if site.answered is None]
    if not names:
        return ""
    more = f" and {len(names) - SHOWN_SITES} more" if len(names) > SHOWN_SITES else ""
    return f"waits for {', '.join(names[:SHOWN_SITES])}{more}"


def site_state(
    facts: Facts, site: SiteFacts, now: datetime, limits: Limits
) -> tuple[SiteState, str]:
    """Return the state of a site of a run and why it is in it."""
    member = site.member
    if not member.is_training:
        return _state_outside(member)
    if member.awaited is not None and not facts.is_finished:
        return "awaits approval", f"a person there has to approve since {_clock(member.awaited)}"
    if site.answered is False or (member.n_in_a_row and site.answered is None):
        return "failing", member.last_failure
    if site.answered or facts.is_finished or facts.is_testing:
        return ("answered", "") if member.last_round is not None else ("joined", "")
    return _open_state(facts, site, now, limits)


def _state_outside(member: Member) -> tuple[SiteState, str]:
    """Return the state of a site that is not asked to train."""
    if member.has_left:
        return "left", "what it gave stays in the weights"
    if member.excluded:
        return "excluded", member.excluded
    return ("tested", "") if member.is_tested else ("held out", "it tests the final models")


def _open_state(
    facts: Facts, site: SiteFacts, now: datetime, limits: Limits
) -> tuple[SiteState, str]:
    """Return the state of a training site whose answer to the round at hand has not come."""
    if not facts.has_rounds:
        return "joined", ""
    if not facts.asks_all:
        state: SiteState = "answered" if site.member.last_round is not None else "joined"
        return state, "not every site is asked in every round"
    since = silent_at(facts, site, limits)
    if since is not None and since <= now and facts.began is not None:
        return "silent", f"asked at {_clock(facts.began)}, no answer since"
    return "working", ""


def _waits_before_rounds(facts: Facts) -> str:
    """Return what a run waits for before its plan, as `coordinator.run_status` says it."""
    awaited = [site.site for site in facts.sites if site.member.awaited is not None]
    if awaited:
        return f"waits for a person's approval at {', '.join(awaited)}"
    missing = _n_missing(facts)
    if missing:
        return f"waits for {missing} more sites to connect"
    return "waits for the sites' plan and their preparation of the cases"


def _n_missing(facts: Facts) -> int:
    """Return how many sites have to connect before a run can begin, as far as that is known."""
    training = sum(site.member.is_training for site in facts.sites)
    held_out = sum(site.member.is_held_out for site in facts.sites)
    needed = facts.settings.min_sites or 1
    return max(0, needed - training) + max(0, len(facts.settings.held_out) - held_out)


def _rounds_left(facts: Facts) -> int | None:
    """Return how many rounds are left of all methods together; None when that is not known."""
    n_rounds = facts.settings.n_rounds
    if n_rounds is None or not facts.methods:
        return None
    ended = dict(facts.ended)
    place = facts.methods.index(facts.method) if facts.method in facts.methods else 0
    own = max(0, n_rounds - ended.get(facts.methods[place], 0))
    if facts.is_testing or facts.is_finished:
        return 0
    return own + n_rounds * (len(facts.methods) - place - 1)


def _words(facts: Facts, phase: Phase) -> str:
    if phase == "finished":
        return "finished"
    if phase == "testing":
        return "all rounds are done; the final models are tested"
    waits = waits_for(facts)
    if phase != "rounds":
        return waits
    (method, round_), n_rounds = facts.at_hand, facts.settings.n_rounds
    of = f" of {n_rounds}" if n_rounds is not None else ""
    return f"{method} round {round_}{of}" + (f": {waits}" if waits else "")


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
