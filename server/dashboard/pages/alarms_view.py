"""The alarms of a run that hold now, and why each rule is as it is."""

from nicegui import html

from server.dashboard.pages.frame import alarm_list, empty_state, section
from server.dashboard.pages.live import Refresh
from server.dashboard.views import Alarm, RunDetail

NONE = "No alarm: every rule was looked at and none applies. An alarm is gone when its cause is."


def alarms_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    with section("Alarms that hold now", "The worst first."):
        box = html.div(role="status")
    shown: list[tuple[Alarm, ...]] = []

    def show(found: RunDetail) -> None:
        if shown == [found.alarms]:
            return
        shown[:] = [found.alarms]
        box.clear()
        with box:
            if found.alarms:
                alarm_list(found.alarms)
            else:
                empty_state(NONE)

    show(detail)
    return show
