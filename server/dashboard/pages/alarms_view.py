"""The alarms of a run that hold now, and why each rule is as it is."""

from server.dashboard.pages.alarm_list import alarm_list
from server.dashboard.pages.frame import section
from server.dashboard.pages.live import Refresh
from server.dashboard.views import RunDetail

EXPLAINED = "Every rule is looked at again and again; an alarm is gone when its cause is."


def alarms_view(detail: RunDetail) -> Refresh:
    """Build the view; return what keeps it up to date."""
    with section("Alarms that hold now", EXPLAINED):
        shown = alarm_list(detail.alarms)
    return lambda found: shown(found.alarms)
