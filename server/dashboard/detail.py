"""Everything that the page of one run shows, made from what its log and its files come to."""

from datetime import datetime
from typing import TypeVar

import numpy as np

from server.coordinator.run_status import Overhead
from server.dashboard.alarms import Limits
from server.dashboard.cells import ROUND_S, SECONDS, snapshot
from server.dashboard.facts import Facts
from server.dashboard.kept import kept_of
from server.dashboard.run_data import RunData
from server.dashboard.site_rows import site_rows
from server.dashboard.views import Alarm, FilesRead, RunDetail, RunSummary
from server.events import (
    FloorMeasured,
    HeldOutScored,
    Note,
    PictureReleased,
    PostprocessingChosen,
    SitePersonalised,
    SitePrivacySpent,
    SumsReleased,
)

T = TypeVar("T")


def detail_of(
    data: RunData,
    facts: Facts,
    files: FilesRead,
    summary: RunSummary,
    alarms: tuple[Alarm, ...],
    now: datetime,
    limits: Limits,
) -> RunDetail:
    """Return what is shown of a run; the arrays are copies, so that the log can be read on."""
    course = data.course
    order = {method: place for place, method in enumerate(facts.methods)}
    methods = sorted(data.cells, key=lambda method: order.get(method, len(order)))
    return RunDetail(
        summary=summary,
        started=course.started,
        n_resumptions=max(0, course.n_starts - 1),
        sites=site_rows(data.cells, facts, now, limits),
        rounds={method: snapshot(method, data.cells[method]) for method in methods},
        faults=tuple(data.kept.faults),
        n_faults=data.kept.n_faults,
        notes=tuple((time, note.text) for time, note in kept_of(data.kept, Note)),
        plan_made=course.plan_made,
        site_privacy=_all(data, SitePrivacySpent),
        personalised=_all(data, SitePersonalised),
        postprocessing=_all(data, PostprocessingChosen),
        held_out=_all(data, HeldOutScored),
        together=_all(data, SumsReleased),
        floors=_all(data, FloorMeasured),
        pictures=_all(data, PictureReleased),
        files=files,
        alarms=alarms,
        unreadable=tuple(data.unreadable),
        overhead=_overhead(data),
    )


def _overhead(data: RunData) -> Overhead | None:
    """Return what `coordinator.run_status.overhead_of` does, from the arrays."""
    n_rounds, rounds_s, training_s = 0, 0.0, 0.0
    for cells in data.cells.values():
        seconds = cells.ends[: cells.n_rounds, ROUND_S]
        finished = ~np.isnan(seconds)
        slowest = np.nan_to_num(cells.answers[: cells.n_rounds, :, SECONDS], nan=0.0).max(axis=1)
        n_rounds += int(finished.sum())
        rounds_s += float(seconds[finished].sum())
        training_s += float(slowest[finished].sum())
    if rounds_s <= 0:
        return None
    return Overhead(n_rounds=n_rounds, round_seconds=rounds_s, training_seconds=training_s)


def _all(data: RunData, kind: type[T]) -> tuple[T, ...]:
    return tuple(event for _, event in kept_of(data.kept, kind))
