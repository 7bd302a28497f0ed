"""What is known of every site of a run: its role, its last answer, its troubles, its privacy."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common.errors import MessageError
from common.privacy.mechanism import Spent
from server.dashboard.cells import MOST_SITES, check_name
from server.events import (
    ApprovalAwaited,
    HeldOutScored,
    RanksReleased,
    ReplyIgnored,
    RunStarted,
    SiteExcluded,
    SiteFailed,
    SiteJoined,
    SiteLeft,
    SiteMasked,
    SitePersonalised,
    SiteTrained,
    SiteValidated,
)

HELD_OUT = "held-out"
POLICY = "policy:"  # how the code of a refusal by a site's policy begins
APPROVAL = "policy:approval"  # nobody there has decided yet: no failure (`keep_runs.py`)
MOST_CHARACTERS = 1000  # of a failure
UNSEEN = "timeout"  # the code of a site that said nothing


@dataclass
class Member:
    """One site."""

    role: str = ""
    n_cases: int | None = None
    awaited: datetime | None = None
    """Since when a person there has to approve the run."""
    has_left: bool = False
    excluded: str = ""
    """Why it is no longer asked."""
    is_tested: bool = False
    last_seen: datetime | None = None
    last_method: str = ""
    last_round: int | None = None
    n_late: int = 0
    n_failures: int = 0
    n_in_a_row: int = 0
    """Rounds that failed since its last good answer."""
    failing_since: datetime | None = None
    last_failed: tuple[str, int] | None = None
    """Method and round."""
    last_failure: str = ""
    n_refusals: int = 0
    last_refusal: str = ""
    spent: Spent | None = None
    """With the largest epsilon."""
    budget_used: float | None = None
    """As it said last."""
    budget_since: tuple[datetime | None, datetime | None] = (None, None)
    """When the share passed 80 % and 100 %."""
    last_loss: float | None = None
    last_dice: float | None = None

    @property
    def is_held_out(self) -> bool:
        """Whether it only tests."""
        return self.role == HELD_OUT

    @property
    def is_training(self) -> bool:
        """Whether it trains and is still asked."""
        return not (self.is_held_out or self.has_left or self.excluded)


BUDGET_STEPS = (0.8, 1.0)  # shares of a site's budget that an alarm is raised at
Members = dict[str, Member]


def follow_members(members: Members, time: datetime, event: Any) -> None:
    """Bring what is known of a site up to an event; kinds without a site change nothing.

    Raises:
        MessageError: for more sites than a federation has.
    """
    if isinstance(event, RunStarted):
        for known in members.values():
            known.awaited = None
        return
    step = STEPS.get(type(event))
    if step is None:
        return
    member = members.get(event.site)
    if member is None:
        check_name(event.site)
        if len(members) >= MOST_SITES:
            raise MessageError(f"site: expected at most {MOST_SITES} sites in a run")
        member = members[event.site] = Member()
    step(member, time, event)


def _join(member: Member, time: datetime, event: SiteJoined) -> None:
    member.role, member.n_cases, member.has_left = event.role, event.n_cases, False
    member.last_seen = time


def _leave(member: Member, _time: datetime, _event: SiteLeft) -> None:
    member.has_left = True


def _exclude(member: Member, _time: datetime, event: SiteExcluded) -> None:
    member.excluded = event.reason[:MOST_CHARACTERS] or "without a reason"


def _await(member: Member, time: datetime, _event: ApprovalAwaited) -> None:
    member.awaited = member.last_seen = time


def _answer(member: Member, time: datetime, event: SiteTrained | SiteMasked) -> None:
    member.last_seen, member.awaited = time, None
    member.last_method, member.last_round = event.method, event.round
    member.n_in_a_row, member.failing_since, member.last_failed = 0, None, None
    if isinstance(event, SiteTrained):
        member.n_late += event.late_rounds > 0
        member.last_loss = event.loss
        if event.spent is not None:
            _spend(member, time, event.spent)


def _spend(member: Member, time: datetime, spent: Spent) -> None:
    if member.spent is None or spent.epsilon > member.spent.epsilon:
        member.spent = spent
    member.budget_used = spent.budget_used
    member.budget_since = tuple(  # type: ignore[assignment] # two steps, two times
        (since or time) if spent.budget_used >= step else None
        for step, since in zip(BUDGET_STEPS, member.budget_since, strict=True)
    )


def _fail(member: Member, time: datetime, event: SiteFailed) -> None:
    if event.code == APPROVAL:
        member.awaited = member.awaited or time
        return
    if event.code != UNSEEN:
        member.last_seen = time
    text = f"{event.code}: {event.reason}"[:MOST_CHARACTERS]
    member.n_failures += 1
    member.last_failure = text
    if event.code.startswith(POLICY):
        member.n_refusals += 1
        member.last_refusal = text
    if member.last_failed != (event.method, event.round):  # a repeated round counts once
        member.n_in_a_row += 1
    member.last_failed = event.method, event.round
    member.failing_since = member.failing_since or time


def _validate(member: Member, time: datetime, event: SiteValidated) -> None:
    member.last_seen = time
    if event.dice:
        member.last_dice = sum(event.dice.values()) / len(event.dice)


def _test(member: Member, time: datetime, event: HeldOutScored | RanksReleased) -> None:
    member.last_seen, member.is_tested = time, True
    member.role = member.role or HELD_OUT
    if member.n_cases is None:
        member.n_cases = event.n_cases


def _see(member: Member, time: datetime, _event: SitePersonalised | ReplyIgnored) -> None:
    member.last_seen = time


STEPS: dict[type, Callable[[Member, datetime, Any], None]] = {
    SiteJoined: _join,
    SiteLeft: _leave,
    SiteExcluded: _exclude,
    ApprovalAwaited: _await,
    SiteTrained: _answer,
    SiteMasked: _answer,
    SiteFailed: _fail,
    SiteValidated: _validate,
    HeldOutScored: _test,
    RanksReleased: _test,
    SitePersonalised: _see,
    ReplyIgnored: _see,
}
