"""What the command starts: the store that pages read, and the webhook that is told of alarms."""

from pathlib import Path

from common.codec import read_toml
from server.dashboard.alarm_settings import AlarmSettings, WebhookSettings, state_file
from server.dashboard.pages.live import Reading
from server.dashboard.store import RunStore
from server.dashboard.webhook import Webhook


def reading_of(
    runs_dir: Path, *, settings: Path | None, webhook: str | None, webhook_state: Path | None
) -> Reading:
    """Return what the pages show of a folder; a webhook is told of its alarms from now on.

    Args:
        runs_dir: of runs, or one run.
        settings: TOML with the limits of alarms and a webhook.
        webhook: address, in place of that of the settings.
        webhook_state: file that keeps what was told to that address.

    Raises:
        ConfigError: for settings that do not fit.
    """
    found = AlarmSettings() if settings is None else read_toml(AlarmSettings, settings)
    told, base = found.webhook, settings.parent if settings else Path()
    if webhook is not None:
        state = None if webhook_state is None else str(webhook_state)
        told, base = WebhookSettings(url=webhook, state=state), Path()
    store = RunStore(runs_dir, found.limits)
    if told is None:
        return Reading(store)
    hook = Webhook(
        told.url,
        lambda alarm: store.raise_alarm("webhook", alarm),
        state=state_file(told, base, runs_dir),
    )
    hook.start()
    return Reading(store, always=True, after_poll=lambda: hook.tell(store.alarms()))
