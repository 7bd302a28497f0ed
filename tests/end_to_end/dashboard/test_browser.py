"""The dashboard in a real Chromium, as a study lead sees it; one browser and one server for all."""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from common.evaluation.metric_sums import MeanAndSd
from common.ranks.held_out_sums import RegionResult
from server.events import (
    HeldOutScored,
    RoundFinished,
    SiteFailed,
    SiteJoined,
    SiteTrained,
    SiteValidated,
    SumsReleased,
)
from server.provisioning.authority import new_authority, new_server, valid_for
from simulation.invented_events import InventedRun
from simulation.invented_runs import CORRUPT_LINES, log_line, older_lines, write_invented

PROJECT = Path(__file__).parents[3]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",  # of the authority that one test makes
]
PATIENCE_S = 20.0  # of waiting for what takes about a second on an idle machine
TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of this test
EVIL = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>'
VIEWS = ("", "sites", "rounds", "updates", "held-out", "ranking", "plan", "alarms", "log")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Dashboard:
    """The command as a process, which can be ended and started again at the same port."""

    def __init__(self, runs: Path, *options: str) -> None:
        self.port, self.runs, self.options = free_port(), runs, options
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it; it takes seconds until it serves."""
        command = [sys.executable, "-m", "consilium", "dashboard", str(self.runs)]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *self.options],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Wait until it tells its address."""
        assert self.process.stderr is not None
        told = self.process.stderr.readline()
        assert "dashboard: http" in told, told + self.process.stderr.read()

    def stop(self) -> str:
        """End it as Ctrl-C does and return what it said since the start."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=PATIENCE_S)[1]

    def ask(self, path: str, **headers: str) -> tuple[int, str]:
        """Return the status and the body that a plain request is answered with."""
        plain = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with closing(plain) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()


class Page:
    """The browser, and waiting for what it shows."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        self.addresses: set[str] = set()
        self.complaints: list[str] = []

    def open(self, address: str) -> None:
        """Open a page and wait until it is alive."""
        self.driver.get(address)
        self.until("window.did_handshake && document.querySelector('main h1')")

    def until(self, condition: str, what: str = "") -> None:
        """Wait until JavaScript says that something is so."""
        end = time.monotonic() + PATIENCE_S
        while not self.driver.execute_script(f"return !!({condition})"):
            assert time.monotonic() < end, f"{what or condition}; the page says:\n{self.text()}"
            time.sleep(0.1)
        self.listen()

    def text(self) -> str:
        """Return what a reader sees."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def shows(self, text: str) -> None:
        """Wait until a text is seen."""
        self.until(f"document.body.innerText.includes({json.dumps(text)})", f"expected {text!r}")

    def column(self, field: str) -> list[str]:
        """Return the texts of a column of the page's first table, from the top."""
        script = (
            "return [...document.querySelectorAll('.ag-row')]"
            ".filter(row => row.querySelector(`[col-id='${arguments[0]}']`))"
            ".sort((a, b) => a.getAttribute('row-index') - b.getAttribute('row-index'))"
            ".map(row => row.querySelector(`[col-id='${arguments[0]}']`).innerText)"
        )
        return list(self.driver.execute_script(script, field))

    def listen(self) -> None:
        """Note which addresses were asked, and what the browser complained of."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.addresses.add(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                self.addresses.add(message["params"]["url"])
        self.complaints += [line["message"] for line in self.driver.get_log("browser")]


LIVE = InventedRun("live", n_sites=3, n_rounds=8, methods=("fedavg",), ending="running",
                   n_rounds_left=5)  # fmt: skip


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    served = Dashboard(tmp_path_factory.mktemp("runs"))
    write_runs(served.runs, datetime.now(UTC))  # while it starts
    served.wait()
    yield served
    served.stop()


@pytest.fixture(scope="module")
def runs(dashboard):
    return dashboard.runs


def write_runs(folder: Path, now: datetime) -> None:
    """Write a run that goes on, a whole one, a large one, a spoilt one and an evil one."""
    write_invented(folder, LIVE, now - timedelta(seconds=30))
    write_invented(folder, InventedRun("whole", private=True), now - timedelta(days=2))
    large = InventedRun("large", n_sites=60, n_rounds=1000, methods=("fedavg",))
    write_invented(folder, large, now - timedelta(days=1))
    spoilt = InventedRun("spoilt", n_rounds=3)
    lines = (*CORRUPT_LINES, *older_lines(now))
    cut = write_invented(folder, spoilt, now - timedelta(days=3), spoilt=lines)
    with cut.events.open("ab") as file:
        file.write(b'{"time": "2026-01-01T00:00:00.000+00:00", "event": "RunFin')
    for name, content in (("garbage", b"\x00\xff{\n" * 9), ("empty", b"")):
        (folder / name).mkdir()
        (folder / name / "events.jsonl").write_bytes(content)
    with (folder / "whole" / "events.jsonl").open("ab") as file:
        for event in told_together():
            file.write(log_line(now - timedelta(days=1), event) + b"\n")
    evil = write_invented(folder, InventedRun("evil", n_sites=2, n_rounds=2), now)
    with evil.events.open("ab") as file:
        for event in evil_events():
            file.write(log_line(now, event) + b"\n")


def told_together():
    """Return what three held-out sites tell that let out nothing but their sum."""
    for site in ("delta", "epsilon", "gamma"):
        yield HeldOutScored(method="fedavg", site=site, n_cases=None, note="", metrics="secure-sum")
    dice, hd95 = MeanAndSd(mean=0.8125, sd=0.0625), MeanAndSd(mean=4.5, sd=1.25)
    result = RegionResult(method="fedavg", region="WT", n_empty_references=2, dice=dice, hd95=hd95)
    yield SumsReleased(sites=("delta", "epsilon", "gamma"), n_cases=37, results=(result,))


def evil_events():
    """Return events of a site whose name is a program."""
    where = {"method": "fedavg", "site": EVIL}
    yield SiteJoined(site=EVIL, role="training", n_cases=3)
    for number in (1, 2):
        yield SiteTrained(**where, round=number, n_cases=3, n_steps=5, loss=1.0, update_norm=1.0,
                          seconds=9.0, upload_bytes=5)  # fmt: skip
        yield SiteValidated(**where, round=number, dice={"WT": 0.5, EVIL: 0.4})
    yield SiteFailed(**where, round=2, code="data", reason=EVIL)


@pytest.fixture(scope="module")
def page(tmp_path_factory, dashboard):
    opened = Page(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


def append(runs: Path, *events: object, at: datetime | None = None) -> None:
    """Log events of the live run, now or at another time."""
    with (runs / "live" / "events.jsonl").open("ab") as file:
        for event in events:
            file.write(log_line(at or datetime.now(UTC), event) + b"\n")


def test_all_runs_are_sorted_and_filtered(page, dashboard):
    page.open(dashboard.url)
    page.until("document.querySelectorAll('.ag-row [col-id=name]').length == 7")
    page.shows("7 runs: ")
    heading = page.driver.find_element(By.CSS_SELECTOR, ".ag-header-cell[col-id=sites]")
    heading.click()
    heading.click()
    page.until("document.querySelector('.ag-row[row-index=\"0\"]').innerText.includes('large')")
    assert page.column("sites")[0] == "60"
    search = page.driver.find_element(By.CSS_SELECTOR, "input[type=search]")
    search.send_keys("spoi")
    page.until("document.querySelectorAll('.ag-row [col-id=name]').length == 1")
    assert page.column("name") == ["spoilt"]
    search.send_keys(Keys.BACKSPACE * 4)
    page.until("document.querySelectorAll('.ag-row [col-id=name]').length == 7")


def test_a_run_is_opened_with_the_keyboard_alone(page, dashboard):
    page.open(dashboard.url)
    page.until("document.querySelectorAll('.ag-row [col-id=name]').length == 7")
    body = page.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to main content"
    cell = page.driver.find_element(By.CSS_SELECTOR, ".ag-row[row-index='0'] [col-id=name]")
    name = cell.text
    page.driver.execute_script("arguments[0].focus()", cell)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(f"location.pathname == {json.dumps(f'/runs/{name}')}")
    page.until("document.querySelector('nav .q-link, nav a[aria-current=page]')")


def test_a_round_arrives_without_a_reload(page, dashboard, runs):
    page.open(f"{dashboard.url}/runs/live")
    page.shows("3 of 8 rounds done")
    page.driver.execute_script("window.stayed = true")
    append(runs, *(trained(site, 4) for site in LIVE.sites))
    append(runs, RoundFinished(method="fedavg", round=4, n_sites=3, seconds=300.0))
    page.shows("4 of 8 rounds done")
    assert page.driver.execute_script("return window.stayed")
    described = "document.querySelector('.chart[role=img]').getAttribute('aria-label')"
    page.until(f"{described}.includes('after round 3')")


def trained(site: str, round_: int) -> SiteTrained:
    """Return an accepted update."""
    return SiteTrained(method="fedavg", round=round_, site=site, n_cases=20, n_steps=50, loss=0.4,
                       update_norm=1.5, seconds=200.0, upload_bytes=10**8)  # fmt: skip


def test_an_alarm_is_raised_and_a_site_goes_silent(page, dashboard, runs):
    page.open(f"{dashboard.url}/runs/live/alarms")
    fault = {"method": "fedavg", "site": "site-02", "code": "data", "reason": "no memory"}
    ago = datetime.now(UTC) - timedelta(hours=9)
    append(runs, *(SiteFailed(**fault, round=number) for number in (5, 6, 7)))
    page.shows("site-02")
    append(runs, RoundFinished(method="fedavg", round=7, n_sites=2, seconds=300.0), at=ago)
    page.shows("site-01")
    page.open(f"{dashboard.url}/runs/live/sites")
    page.until("document.body.innerText.includes('silent')")


def test_a_run_of_60_sites_and_1000_rounds_is_there_within_two_seconds(page, dashboard):
    page.open(f"{dashboard.url}/runs/large")  # its log is read once
    seconds = []
    for _ in range(3):
        page.driver.get("about:blank")
        began = time.monotonic()
        page.driver.get(f"{dashboard.url}/runs/large")
        while not page.driver.execute_script(
            "return window.did_handshake && document.querySelectorAll('.chart svg path').length > 9"
        ):
            time.sleep(0.02)
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 2.0
    drawn = page.driver.execute_script("return document.querySelectorAll('.chart svg *').length")
    assert drawn < 2000


def test_what_sites_told_only_in_a_sum_stands_there_as_theirs_together(page, dashboard):
    page.open(f"{dashboard.url}/runs/whole/held-out")
    page.shows("3 sites together, 37 cases")
    page.shows("Nothing of this site alone is known here")
    page.until(
        "[...document.querySelectorAll('.ag-row')].some(row => row.innerText.includes('0.062')"
        " && row.innerText.includes('4.5') && row.innerText.includes('0.81'))"
    )
    page.open(f"{dashboard.url}/runs/whole/ranking")
    page.shows("methods on")
    assert not any(mark in page.text() for mark in "\ue000\ue001\ue002")


def test_a_spoilt_log_shows_a_banner_with_its_lines_and_the_rest(page, dashboard):
    page.open(f"{dashboard.url}/runs/spoilt")
    page.shows("6 lines of events.jsonl could not be read")
    page.shows("line 3")
    page.shows("6 of 6 rounds done")
    page.open(f"{dashboard.url}/runs/spoilt/log?kind=unreadable")
    page.until("document.querySelectorAll('.ag-row [col-id=number]').length == 6")


def test_a_program_in_a_name_is_text_on_every_page(page, dashboard):
    for view in VIEWS:
        page.open(f"{dashboard.url}/runs/evil/{view}".rstrip("/"))
        for closed in page.driver.find_elements(By.CSS_SELECTOR, ".q-expansion-item .q-item"):
            page.driver.execute_script("arguments[0].click()", closed)
        time.sleep(0.3)
        assert page.driver.execute_script("return window.owned === undefined"), view
        assert not page.driver.find_elements(By.CSS_SELECTOR, "img[src=x]"), view
    page.open(f"{dashboard.url}/runs/evil/sites")
    page.until("document.body.innerText.includes('<img src=x')")


@pytest.mark.parametrize("name", ["garbage", "empty"])
def test_a_log_without_a_readable_line_is_no_blank_page(dashboard, name):
    for view in VIEWS:
        status, body = dashboard.ask(f"/runs/{name}/{view}".rstrip("/"))
        assert (status, "<h1" in body or '"h1"' in body) == (200, True), view


def test_two_chosen_runs_stand_side_by_side_with_their_differences(page, dashboard):
    page.open(dashboard.url)
    page.until("document.querySelectorAll('.ag-row [col-id=name]').length == 7")
    for name in ("live", "whole"):
        box = f".ag-row[row-id={name}] .ag-selection-checkbox input"
        page.driver.find_element(By.CSS_SELECTOR, box).click()
    page.driver.find_element(By.XPATH, "//button[contains(., 'Compare the two')]").click()
    page.shows("Settings that differ")
    assert page.driver.current_url == f"{dashboard.url}/compare?a=live&b=whole"
    page.until("document.querySelectorAll('.chart svg').length == 4")
    page.shows("federation.rounds")


def test_the_page_comes_back_by_itself_after_a_restart(page, dashboard, runs):
    page.open(f"{dashboard.url}/runs/live")
    said = dashboard.stop()
    assert "Traceback" not in said
    page.until("getComputedStyle(document.getElementById('popup')).opacity > 0.5")
    append(runs, RoundFinished(method="fedavg", round=8, n_sites=3, seconds=300.0))
    dashboard.start()
    dashboard.wait()
    page.shows("8 of 8 rounds done")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/runs/..%2F..%2Fetc", 404),
        ("/runs/../../../etc/passwd", 404),
        ("/runs/" + quote("../live", safe=""), 404),
        ("/runs/live/..%2F..%2Fevents.jsonl", 404),
        ("/runs/nobody", 404),
        ("/runs/live/nothing", 404),
        ("/compare?a=" + "x" * 3000, 414),
        ("/openapi.json", 404),
        ("/docs", 404),
        ("/.nicegui", 404),
    ],
)
def test_an_odd_address_is_refused_and_tells_nothing(dashboard, path, status):
    found, body = dashboard.ask(path)
    assert found == status
    assert "root:" not in body
    assert str(dashboard.runs) not in body


def test_a_foreign_page_gets_nothing_from_loopback(dashboard):
    assert dashboard.ask("/", Host="evil.example")[0] == 421
    assert dashboard.ask("/", Origin="http://evil.example")[0] == 403


def test_another_address_is_refused_without_token_and_tls(runs):
    command = [sys.executable, "-m", "consilium", "dashboard", str(runs), "--host", "0.0.0.0"]  # noqa: S104
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "expected --token-file, --certificate and --key" in ended.stderr


def test_over_tls_nothing_is_shown_before_the_token(page, runs, tmp_path):
    now = datetime.now(UTC)
    authority = new_authority("study", now)
    server = new_server(authority, ["localhost"], valid_for(2, now))
    files = {"token": TOKEN.encode(), "cert.pem": server.certificate, "key.pem": server.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    given = {"--token-file": "token", "--certificate": "cert.pem", "--key": "key.pem"}
    options = [part for option, name in given.items() for part in (option, str(tmp_path / name))]
    served = Dashboard(runs, "--host", "0.0.0.0", *options)  # noqa: S104
    try:
        served.wait()
        trust = ssl.create_default_context(cadata=authority.certificate.decode())
        asked = {"Authorization": f"Bearer {TOKEN}"}
        for headers, status in ((asked, 200), ({}, 401), ({**asked, "Host": "evil"}, 421)):
            link = http.client.HTTPSConnection("localhost", served.port, context=trust)
            with closing(link):
                link.request("GET", "/runs/live", headers=headers)
                answer = link.getresponse()
                assert answer.status == status
                assert (b"site-01" in answer.read()) == (status == 200)
        page.driver.get(f"https://localhost:{served.port}/runs/live")
        page.driver.find_element(By.ID, "token").send_keys(TOKEN, Keys.ENTER)
        page.until("window.did_handshake")
        page.until("document.querySelectorAll('.ag-row [col-id=name]').length == 7")
    finally:
        said = served.stop()
    assert TOKEN not in said


def test_no_page_asked_for_anything_beyond_loopback(page):
    """The last test: over all pages that were opened before."""
    assert len(page.addresses) > 50
    asked = [urlsplit(address) for address in page.addresses]
    beyond = {at.hostname for at in asked if at.scheme in {"http", "https", "ws", "wss"}}
    assert beyond == {"127.0.0.1", "localhost"}
    assert not [text for text in page.complaints if "Content Security Policy" in text]
