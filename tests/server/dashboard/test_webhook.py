"""The webhook: one POST per alarm to the one address given, and nothing else anywhere."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from common.codec import read_toml
from common.errors import ConfigError
from server.dashboard.alarm_settings import AlarmSettings, WebhookSettings, state_file
from server.dashboard.views import Alarm
from server.dashboard.webhook import Webhook, check_url, send

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def alarm(site: str = "a", run: str = "r", since: datetime = NOON) -> Alarm:
    return Alarm("site silent", "warning", run, site, since, f"{site} is silent.", "why")


class Receiver:
    """A program on loopback that alarms are sent to; answers as told, then with 200."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, str]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bodies.append(json.loads(body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


Open = Callable[..., Webhook]


@pytest.fixture
def shown() -> list[Alarm | None]:
    return []


@pytest.fixture
def opened(receiver: Receiver, shown: list[Alarm | None]) -> Iterator[Open]:
    hooks: list[Webhook] = []

    def make(**options: object) -> Webhook:
        hook = Webhook(receiver.url, shown.append, waits_s=(0.01, 0.01), **options)  # type: ignore[arg-type]
        hooks.append(hook)
        hook.start()
        return hook

    yield make
    for hook in hooks:
        hook.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_alarm_is_told_once_however_long_it_holds(receiver: Receiver, opened: Open) -> None:
    hook = opened()
    for _ in range(3):
        hook.tell([alarm("a"), alarm("b")])
    wait_until(lambda: len(receiver.bodies) == 2)
    hook.tell([alarm("a"), alarm("b"), alarm("c")])
    wait_until(lambda: len(receiver.bodies) == 3)
    assert [body["site"] for body in receiver.bodies] == ["a", "b", "c"]
    assert receiver.bodies[0] == {
        "alarm": "site silent",
        "severity": "warning",
        "run": "r",
        "site": "a",
        "since": "2026-03-01T12:00:00+00:00",
        "text": "a is silent.",
    }


def test_an_alarm_that_comes_again_later_is_told_again(receiver: Receiver, opened: Open) -> None:
    hook = opened()
    hook.tell([alarm("a")])
    hook.tell([])
    hook.tell([alarm("a", since=NOON.replace(hour=13))])
    wait_until(lambda: len(receiver.bodies) == 2)


def test_an_alarm_of_the_folder_is_told_until_it_clears(receiver: Receiver, opened: Open) -> None:
    hook = opened()
    hook.tell([alarm("", run="")])
    wait_until(lambda: len(receiver.bodies) == 1)
    time.sleep(0.05)  # until it is noted
    hook.tell([alarm("", run="", since=NOON.replace(hour=13))])
    hook.tell([])
    hook.tell([alarm("", run="", since=NOON.replace(hour=14))])
    wait_until(lambda: len(receiver.bodies) == 2)
    assert receiver.bodies[1]["since"] == "2026-03-01T14:00:00+00:00"


def test_a_restart_does_not_tell_it_again(tmp_path: Path, receiver: Receiver, opened: Open) -> None:
    state = tmp_path / "told.json"
    opened(state=state).tell([alarm("a")])
    wait_until(lambda: state.exists() and "site silent" in state.read_text())
    opened(state=state).tell([alarm("a"), alarm("b")])
    wait_until(lambda: len(receiver.bodies) == 2)
    assert [body["site"] for body in receiver.bodies] == ["a", "b"]


def test_a_refused_alarm_is_sent_again_and_the_failure_is_shown(
    receiver: Receiver, opened: Open, shown: list[Alarm | None]
) -> None:
    receiver.answers += [500, 503]
    opened().tell([alarm("a")])
    wait_until(lambda: shown[-1:] == [None])
    assert [body["site"] for body in receiver.bodies] == ["a", "a", "a"]
    failures = [found.text for found in shown if found is not None]
    assert failures == [
        "The webhook did not take an alarm: it answered 500.",
        "The webhook did not take an alarm: it answered 503.",
    ]


def test_it_gives_up_on_one_alarm_and_goes_on(
    receiver: Receiver, opened: Open, shown: list[Alarm | None]
) -> None:
    receiver.answers += [500, 500, 500]
    opened().tell([alarm("a"), alarm("b")])
    wait_until(lambda: len(receiver.bodies) == 4)
    assert [body["site"] for body in receiver.bodies] == ["a", "a", "a", "b"]
    assert shown[2] is not None


def test_its_own_failure_is_not_sent(receiver: Receiver, opened: Open) -> None:
    own = Alarm("webhook failing", "warning", "", "", NOON, "text", "why")
    opened().tell([own, alarm("a")])
    wait_until(lambda: len(receiver.bodies) == 1)
    assert receiver.bodies[0]["alarm"] == "site silent"


def test_a_redirection_is_not_followed(receiver: Receiver) -> None:
    receiver.answers += [307]
    assert send(receiver.url, alarm()) == "it answered 307"
    assert len(receiver.bodies) == 1


def test_nobody_there_is_said_in_words() -> None:
    assert send("http://127.0.0.1:9/", alarm()) == "no answer (ConnectError)"


@pytest.mark.parametrize(
    "url",
    ["https://hospital.example/hook", "http://127.0.0.1:8/", "http://[::1]/", "http://localhost/"],
)
def test_an_address_that_is_safe_is_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hospital.example/",
        "http://127.0.0.1.example/",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///x",
        "https://",
        "hook",
        "",
    ],
)
def test_another_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="webhook: expected"):
        check_url(url)


def test_limits_and_webhook_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "alarms.toml"
    path.write_text(
        "[limits]\nsilent_factor = 5.0\n"
        '[webhook]\nurl = "https://h.example/"\nstate = "told.json"\n'
    )
    found = read_toml(AlarmSettings, path)
    assert found.limits.silent_factor == 5.0
    assert found.limits.failures_in_a_row == 3
    assert found.webhook is not None
    assert state_file(found.webhook, tmp_path, tmp_path / "runs") == tmp_path / "told.json"


def test_what_was_told_is_not_kept_in_the_folder_of_runs(tmp_path: Path) -> None:
    settings = WebhookSettings(url="https://h.example/", state="told.json")
    with pytest.raises(ConfigError, match=r"webhook.state: expected a file outside"):
        state_file(settings, tmp_path, tmp_path)
