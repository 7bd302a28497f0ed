"""A list of alarms on a page, kept as it is while only its words change."""

from collections.abc import Callable, Sequence

from nicegui import html, ui

from server.dashboard.pages.frame import run_address
from server.dashboard.pages.words import SEVERITY_WORDS, time_text
from server.dashboard.views import Alarm

EARLIEST_YEAR = 2000  # what is older stands for no time at all
ORDER = ("critical", "warning", "info")


def alarm_list(
    alarms: Sequence[Alarm], *, with_run: bool = False
) -> Callable[[Sequence[Alarm]], None]:
    """Put alarms on the page, the worst first.

    Their number is told to those who listen to the page; the words change too often for that.

    Returns:
        What shows other alarms in their place. Nobody loses the link that has the focus, unless
        alarms came or went.
    """
    told = ui.label().props('role="status"').classes("says")
    box, texts = html.ul().classes("alarms"), dict[tuple[str, ...], ui.label]()

    def show(found: Sequence[Alarm]) -> None:
        told.text = _number_of(found)
        keys = [alarm.key for alarm in found]
        if list(texts) != keys:
            box.clear()
            texts.clear()
            with box:
                texts.update({alarm.key: _line(alarm, with_run=with_run) for alarm in found})
        for alarm in found:
            texts[alarm.key].text = alarm.text

    def show_in_order(found: Sequence[Alarm]) -> None:
        show(sorted(found, key=lambda alarm: ORDER.index(alarm.severity)))

    show_in_order(alarms)
    return show_in_order


def _line(alarm: Alarm, *, with_run: bool) -> ui.label:
    with html.li().classes(alarm.severity):
        html.strong(f"{SEVERITY_WORDS[alarm.severity]}:")
        if with_run and alarm.run:
            ui.link(alarm.run, run_address(alarm.run))
        text = ui.label(alarm.text).classes("inline")
        known = alarm.since.year > EARLIEST_YEAR
        since = f"since {time_text(alarm.since)} UTC" if known else "since when is not known"
        html.small(f"{since}. Why this rule: {alarm.reason}")
    return text


def _number_of(alarms: Sequence[Alarm]) -> str:
    if not alarms:
        return "No alarm holds now."
    counted = [(sum(a.severity == kind for a in alarms), SEVERITY_WORDS[kind]) for kind in ORDER]
    told = ", ".join(f"{words.lower()} {n}" for n, words in counted if n)
    return f"Alarms that hold now: {told}."
