import asyncio
import json
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from common.errors import ConfigError
from server.dashboard.start import reading_of
from simulation.invented_events import InventedRun
from simulation.invented_runs import write_invented

NOTHING = {"settings": None, "webhook": None, "webhook_state": None}


@pytest.fixture
def hook():
    """Yield the address of a program that keeps what it is told, and what it was told."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/alarms", told
        server.shutdown()


async def polled(reading, told):
    """Read once and wait until the webhook was told."""
    await reading.poll()
    for _ in range(200):
        if told:
            return
        await asyncio.sleep(0.02)


def test_a_webhook_is_told_of_alarms_while_no_page_is_open(tmp_path, hook):
    address, told = hook
    run = InventedRun("live", ending="running", methods=("fedavg",))
    write_invented(tmp_path / "runs", run, datetime.now(UTC) - timedelta(hours=2))
    reading = reading_of(tmp_path / "runs", **{**NOTHING, "webhook": address})
    assert reading.always
    asyncio.run(polled(reading, told))
    assert (told[0]["run"], told[0]["alarm"]) == ("live", "run without events")


def test_without_a_webhook_nothing_is_read_while_no_page_is_open(tmp_path):
    assert not reading_of(tmp_path, **NOTHING).always


def test_the_limits_of_alarms_come_from_a_file(tmp_path):
    settings = tmp_path / "alarms.toml"
    settings.write_text("[limits]\nfailures_in_a_row = 7\n")
    reading = reading_of(tmp_path, **{**NOTHING, "settings": settings})
    assert reading.store.limits.failures_in_a_row == 7


def test_what_a_webhook_was_told_is_not_kept_among_the_runs(tmp_path):
    given = {"webhook": "https://chat.example/x", "webhook_state": tmp_path / "told.json"}
    with pytest.raises(ConfigError, match="expected a file outside"):
        reading_of(tmp_path, **{**NOTHING, **given})


def test_a_webhook_without_tls_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected https"):
        reading_of(tmp_path, **{**NOTHING, "webhook": "http://chat.example/x"})


async def seen_after_a_look(reading, name):
    """Return whether a page finds a run when it is opened."""
    await reading.look_again()
    return await reading.detail(name) is not None


def test_a_page_finds_a_run_that_came_while_nobody_looked(tmp_path):
    reading = reading_of(tmp_path, **NOTHING)
    assert not asyncio.run(seen_after_a_look(reading, "late"))
    write_invented(tmp_path, InventedRun("late"), datetime.now(UTC))
    assert asyncio.run(seen_after_a_look(reading, "late"))
    reading.open_page()
    write_invented(tmp_path, InventedRun("later"), datetime.now(UTC))
    assert not asyncio.run(seen_after_a_look(reading, "later"))  # the open page's reading finds it
