"""Telling another program of alarms: a small JSON by POST, to the one address that the user gave.

No connection is made otherwise. Each alarm is told once, also across restarts where a file for
that is named. Events name sites, rounds and numbers, so nothing of a patient can be in it.
"""

import ipaddress
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from threading import Condition, Thread

import httpx

from common.codec import read_json, record, write_json
from common.errors import ConfigError, ConsiliumError
from common.files import demand_writable
from server.dashboard.views import Alarm

TIMEOUT_S = 10.0
WAITS_S = (5.0, 30.0, 120.0, 600.0)  # between tries; then the alarm is given up
MOST_TOLD = 5000  # alarms that are remembered; an old one has cleared long ago
RULE = "webhook failing"
REASON = "whoever relies on the webhook has to know that nothing comes"


@record
class Told:
    """The file that keeps which alarms were told."""

    keys: tuple[str, ...] = ()
    """The newest last."""


class Webhook:
    """Tells of alarms from a thread of its own, so that nobody waits for the other program."""

    def __init__(
        self,
        url: str,
        show: Callable[[Alarm | None], None],
        *,
        state: Path | None = None,
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        """Check the address and the file; nothing is sent before `start`.

        Args:
            url: https, or http to loopback.
            show: is told of the alarm that the webhook itself fails, and None when it works again.
            state: file that keeps which alarms were told; without it a restart tells them again.
            waits_s: between tries.

        Raises:
            ConfigError: for another address, or a file that is damaged or cannot be written.
        """
        check_url(url)
        if state is not None:
            demand_writable(state)
        self._url, self._show, self._state, self._waits_s = url, show, state, tuple(waits_s)
        kept = read_json(Told, state).keys if state is not None and state.exists() else ()
        self._told = dict.fromkeys(kept)
        self._queue: list[Alarm] = []
        self._changed, self._is_stopped = Condition(), False
        self._thread = Thread(target=self._work, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def tell(self, alarms: Sequence[Alarm]) -> None:
        """Send those of the present alarms that were not told yet; returns at once."""
        with self._changed:
            waiting = {_key(alarm) for alarm in self._queue}
            present = {_key(alarm) for alarm in alarms}
            for key in [key for key in self._told if key.startswith("/") and key not in present]:
                del self._told[key]  # of the folder: it has no time of its own, and has cleared
            new = [a for a in alarms if a.rule != RULE and _key(a) not in {*self._told, *waiting}]
            self._queue += new
            self._changed.notify_all()

    def stop(self, within_s: float = TIMEOUT_S) -> None:
        """End the thread, after what it is sending."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(within_s)

    def _work(self) -> None:
        while (alarm := self._next()) is not None:
            self._send_patiently(alarm)
            with self._changed:
                self._queue.remove(alarm)
                self._told[_key(alarm)] = None
                keys = tuple(self._told)[-MOST_TOLD:]
            self._keep(keys)

    def _next(self) -> Alarm | None:
        """Wait for an alarm to send; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or bool(self._queue))
            return None if self._is_stopped else self._queue[0]

    def _send_patiently(self, alarm: Alarm) -> None:
        for wait_s in (*self._waits_s, None):
            failure = send(self._url, alarm)
            if not failure:
                self._show(None)
                return
            self._show(_failing(f"The webhook did not take an alarm: {failure}."))
            if wait_s is None or self._is_over(wait_s):
                return

    def _is_over(self, wait_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopped, wait_s)

    def _keep(self, keys: tuple[str, ...]) -> None:
        if self._state is None:
            return
        try:
            write_json(self._state, Told(keys=keys))
        except ConsiliumError as error:
            self._show(_failing(f"What was told cannot be kept: {error}"))


def send(url: str, alarm: Alarm) -> str:
    """Send one alarm; return what went wrong, in words; empty if nothing did."""
    target = httpx.URL(url)
    is_here = _is_loopback(target.host)
    try:
        with httpx.Client(
            timeout=TIMEOUT_S,
            follow_redirects=False,
            trust_env=not is_here,  # a proxy has no business there
            verify=target.scheme == "https",  # else there is nothing to verify
        ) as client:
            answer = client.post(
                url, content=body_of(alarm), headers={"Content-Type": "application/json"}
            )
    except httpx.HTTPError as error:
        return f"no answer ({type(error).__name__})"
    return "" if answer.is_success else f"it answered {answer.status_code}"


def body_of(alarm: Alarm) -> bytes:
    """Return what is sent of an alarm."""
    plain = {
        "alarm": alarm.rule,
        "severity": alarm.severity,
        "run": alarm.run,
        "site": alarm.site,
        "since": alarm.since.isoformat(timespec="seconds"),
        "text": alarm.text,
    }
    return json.dumps(plain).encode()


def check_url(url: str) -> None:
    """Demand an address that alarms may be sent to.

    Raises:
        ConfigError: for one that is not https, unless it is http to loopback.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ConfigError(f"webhook: expected an address, found {url!r}: {error}") from None
    is_safe = parsed.scheme == "https" or (parsed.scheme == "http" and _is_loopback(parsed.host))
    if not is_safe or not parsed.host:
        raise ConfigError(
            f"webhook: expected https://..., or http:// to this machine, found {url!r}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key(alarm: Alarm) -> str:
    return "/".join(alarm.key)


def _failing(text: str) -> Alarm:
    return Alarm(RULE, "warning", "", "", datetime.now(UTC), text, REASON)
