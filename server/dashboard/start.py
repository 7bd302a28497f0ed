"""What the command starts: the store of runs that the pages read."""

from pathlib import Path

from server.dashboard.alarms import Limits
from server.dashboard.pages.live import Reading
from server.dashboard.store import RunStore


def reading_of(runs_dir: Path) -> Reading:
    """Return what the pages show of a folder."""
    return Reading(RunStore(runs_dir, Limits()))
