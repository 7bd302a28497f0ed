"""What a study lead may decide about alarms, in a TOML file of his own beside the command line."""

from pathlib import Path

from common.codec import record
from common.errors import ConfigError
from server.dashboard.alarms import Limits


@record
class WebhookSettings:
    """Who is told of alarms."""

    url: str
    """https, or http to this machine."""
    state: str | None = None
    """File that keeps which alarms were told, relative to this one; not in the folder of runs."""


@record
class AlarmSettings:
    """The file."""

    limits: Limits = Limits()
    webhook: WebhookSettings | None = None


def state_file(settings: WebhookSettings, base: Path, runs_dir: Path) -> Path | None:
    """Return the file that keeps what was told.

    Args:
        settings: where it lies.
        base: folder of the file with the settings.
        runs_dir: the folder that is shown.

    Raises:
        ConfigError: when it would lie in the folder of runs, which the dashboard only reads.
    """
    if settings.state is None:
        return None
    path = base / settings.state
    if path.resolve().is_relative_to(runs_dir.resolve()):
        raise ConfigError(
            f"webhook.state: expected a file outside {runs_dir}, which is only read, found {path}"
        )
    return path
