"""Where a run is: what began, which round is at hand, who has answered in it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from server.events import (
    FloorMeasured,
    HeldOutScored,
    PlanMade,
    PostprocessingChosen,
    RanksReleased,
    RoundFinished,
    RunFinished,
    RunStarted,
    SiteFailed,
    SiteMasked,
    SitePersonalised,
    SiteTrained,
    SumLost,
    SumOpened,
    SumsReleased,
)


@dataclass
class Course:
    """The course of a run so far."""

    started: RunStarted | None = None
    """The last start."""
    n_starts: int = 0
    first: datetime | None = None
    """When the first event was logged."""
    last: datetime | None = None
    """When the last one was."""
    plan_made: PlanMade | None = None
    finished: RunFinished | None = None
    method: str = ""
    """Of the last event of a round."""
    began: datetime | None = None
    """When the round at hand began: the one before it ended, or the run was started."""
    answered: dict[str, bool] = field(default_factory=dict)
    """Whether a site's answer to the round at hand was good."""
    ended: dict[str, int] = field(default_factory=dict)
    """The last finished round by method."""
    is_testing: bool = False
    longest_gap_s: float = 0.0
    """Between events since the first round finished."""
    lost: SumLost | None = None
    """The last sum, if it was lost."""
    lost_at: datetime | None = None


def pass_time(course: Course, time: datetime) -> None:
    """Note that something was logged."""
    if course.last is None or course.first is None:
        course.first = course.last = time
        return
    if course.ended:
        gap_s = (time - course.last).total_seconds()
        course.longest_gap_s = max(course.longest_gap_s, gap_s)
    course.last = max(course.last, time)  # a clock may be set back


def follow_course(course: Course, time: datetime, event: Any) -> None:
    """Bring the course up to an event; kinds that do not matter change nothing."""
    step = STEPS.get(type(event))
    if step is not None:
        step(course, time, event)


def _start(course: Course, time: datetime, event: RunStarted) -> None:
    course.started, course.finished = event, None
    course.n_starts += 1
    course.longest_gap_s = 0.0  # a run may lie still for days before it is resumed
    course.is_testing = False
    _begin_round(course, time)


def _plan(course: Course, time: datetime, event: PlanMade) -> None:
    course.plan_made = event
    _begin_round(course, time)


def _begin_round(course: Course, time: datetime) -> None:
    course.began = time
    course.answered.clear()


def _answer(course: Course, _time: datetime, event: SiteTrained | SiteMasked) -> None:
    course.method, course.is_testing = event.method, False
    course.answered[event.site] = True


def _fail(course: Course, _time: datetime, event: SiteFailed) -> None:
    course.method = event.method
    if event.round > course.ended.get(event.method, 0):  # else it failed at validating
        course.answered[event.site] = False


def _end_round(course: Course, time: datetime, event: RoundFinished) -> None:
    course.method = event.method
    course.ended[event.method] = max(event.round, course.ended.get(event.method, 0))
    _begin_round(course, time)


def _lose(course: Course, time: datetime, event: SumLost) -> None:
    course.lost, course.lost_at = event, time


def _regain(course: Course, _time: datetime, _event: Any) -> None:
    course.lost = course.lost_at = None


def _test(course: Course, _time: datetime, _event: Any) -> None:
    course.is_testing = True


def _finish(course: Course, _time: datetime, event: RunFinished) -> None:
    course.finished = event


STEPS: dict[type, Callable[[Course, datetime, Any], None]] = {
    RunStarted: _start,
    PlanMade: _plan,
    SiteTrained: _answer,
    SiteMasked: _answer,
    SiteFailed: _fail,
    RoundFinished: _end_round,
    SumLost: _lose,
    SitePersonalised: _test,
    PostprocessingChosen: _test,
    HeldOutScored: _test,
    RanksReleased: _test,
    SumsReleased: _test,
    FloorMeasured: _test,
    SumOpened: _regain,
    RunFinished: _finish,
}
