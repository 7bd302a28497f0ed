"""A run at a glance: how far it is, its numbers, its learning curves."""

from collections.abc import Iterator

from nicegui import html, ui

from server.dashboard.pages.alarm_list import alarm_list
from server.dashboard.pages.curves_view import curves_view
from server.dashboard.pages.frame import empty_state, section
from server.dashboard.pages.live import Refresh
from server.dashboard.pages.words import (
    count_text,
    number_text,
    seconds_text,
    share_text,
    size_text,
    text_or_dash,
    time_text,
)
from server.dashboard.views import RunDetail, RunSummary
from server.reporting.report_data import method_label


def overview(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    parts = (
        _progress(detail),
        _alarms(detail),
        _facts(detail),
        curves_view(detail),
        _notes(detail),
    )

    def refresh(found: RunDetail) -> None:
        for part in parts:
            part(found)

    return refresh


def _progress(detail: RunDetail) -> Refresh:
    with section("Progress"):
        bar = ui.linear_progress(detail.summary.progress.fraction, show_value=False)
        text = ui.label()

    def show(found: RunDetail) -> None:
        progress = found.summary.progress
        bar.value = progress.fraction
        text.text = progress_text(found.summary)
        bar.props["aria-label"] = f"{progress.fraction:.0%} of the rounds are done"

    show(detail)
    return show


def progress_text(run: RunSummary) -> str:
    """Return how far a run is, in a few sentences."""
    progress = run.progress
    of = "" if progress.n_rounds is None else f" of {count_text(progress.n_rounds)}"
    rounds = f"{count_text(progress.n_rounds_done)}{of} rounds"
    left = ""
    if progress.left_s is not None and progress.phase == "rounds":
        left = f", about {seconds_text(progress.left_s)} left"
        left += f" at {seconds_text(progress.round_s)} per round" if progress.round_s else ""
    reason = f": {run.reason}" if run.reason and run.reason not in progress.text else ""
    now = f" {progress.text}." if progress.text and progress.text != run.state else ""
    return f"{run.state.capitalize()}{reason}. {rounds} done{left}.{now}"


def _alarms(detail: RunDetail) -> Refresh:
    with section("Alarms"):
        shown = alarm_list(detail.alarms)
    return lambda found: shown(found.alarms)


def _facts(detail: RunDetail) -> Refresh:
    labels: dict[str, ui.label] = {}
    with section("Numbers"), html.dl().classes("facts"):
        for name, value in facts(detail):
            with html.div():
                html.dt(name)
                with html.dd():
                    labels[name] = ui.label(value)

    def show(found: RunDetail) -> None:
        for name, value in facts(found):
            labels[name].text = value

    return show


def facts(detail: RunDetail) -> Iterator[tuple[str, str]]:
    """Yield the numbers of a run with their names; the same names for every run."""
    run, best = detail.summary, detail.summary.best
    yield "Task", text_or_dash(run.task)
    yield "Methods", ", ".join(map(method_label, run.methods)) or text_or_dash(None)
    now = f"{method_label(run.method)}, {run.round} of {text_or_dash(run.n_rounds)}"
    yield "Method and round", now if run.method else text_or_dash(None)
    yield "Sites that train", count_text(run.n_sites)
    yield "Sites held out", count_text(run.n_held_out)
    yield "Best validation Dice", number_text(3)(best.dice if best else None)
    best_at = f"{method_label(best.method)}, round {best.round}" if best else None
    yield "Best Dice was of", text_or_dash(best_at)
    yield "Epsilon for patients, largest", number_text(2)(run.epsilon)
    yield "Privacy budget used, largest", share_text(run.budget_used)
    yield "Epsilon for sites", number_text(2)(run.site_epsilon)
    yield "From the sites", size_text(run.upload_bytes)
    yield "To the sites", size_text(run.download_bytes)
    yield "Started (UTC)", time_text(run.started)
    yield "Last event (UTC)", time_text(run.last_event)
    yield "Duration so far", seconds_text(run.seconds)
    yield "Resumed", f"{detail.n_resumptions} times"


def _notes(detail: RunDetail) -> Refresh:
    with section("Notes", "What the run itself found worth telling."):
        box = html.div()
    shown: list[object] = [None]

    def show(found: RunDetail) -> None:
        if found.notes == shown[0]:
            return
        shown[0] = found.notes
        box.clear()
        with box:
            if not found.notes:
                empty_state("No notes: nothing unusual was found when the run began.")
            for time, text in found.notes:
                html.p(f"{time_text(time)} UTC: {text}")

    show(detail)
    return show
