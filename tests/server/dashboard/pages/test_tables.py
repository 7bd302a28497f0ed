from datetime import UTC, datetime

import pytest

from server.dashboard.alarms import Limits
from server.dashboard.pages.compare_page import number_rows, setting_rows
from server.dashboard.pages.grid import Column, cells
from server.dashboard.pages.overview import progress_text
from server.dashboard.pages.runs_page import COLUMNS, row_of
from server.dashboard.pages.sites_view import COLUMNS as SITE_COLUMNS
from server.dashboard.pages.sites_view import rows_of
from server.dashboard.pages.words import seconds_text, share_text, size_text, time_text
from server.dashboard.store import RunStore
from simulation.invented_events import InventedRun
from simulation.invented_runs import write_invented

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    write_invented(tmp_path, InventedRun("first", n_sites=2, n_rounds=3, private=True), NOW)
    write_invented(
        tmp_path,
        InventedRun("second & <b>", n_rounds=4, methods=("fedavg",), ending="running"),
        NOW,
    )
    found = RunStore(tmp_path, Limits())
    found.poll(NOW)
    return found


def test_a_cell_is_sorted_by_its_value_and_read_as_text():
    columns = (Column("size", "Size", "", size_text), Column("at", "At", "", time_text))
    row = {"id": "x", "size": 3 * 2**20, "at": NOW}
    assert cells(row, columns) == {
        "id": "x",
        "size": 3145728,
        "size_text": "3.0 MiB",
        "at": NOW.timestamp(),
        "at_text": "2026-05-01 12:00:00",
    }


def test_long_runs_and_many_bytes_have_units_of_their_own():
    assert seconds_text(8 * 86400 + 2 * 3600) == "8 d 2 h"
    assert seconds_text(3700) == "1 h 1 min"
    assert size_text(3 * 2**40) == "3.0 TiB"
    assert size_text(900 * 2**30) == "900.0 GiB"


def test_what_is_not_known_is_a_dash():
    for text in (size_text, seconds_text, share_text):
        assert text(None) == text(float("nan")) == "\N{EN DASH}"
    assert time_text(None) == "\N{EN DASH}"


def test_a_value_that_json_lacks_is_sent_as_none():
    column = Column("dice", "Dice", "")
    assert cells({"id": "x", "dice": float("inf")}, (column,))["dice"] is None


def test_a_run_links_to_its_page_by_a_quoted_name(store):
    rows = {row["id"]: row for row in map(row_of, store.summaries())}
    assert rows["second & <b>"]["href"] == "/runs/second%20%26%20%3Cb%3E"
    assert rows["first"]["round"] == "3 of 3"
    assert set(rows["first"]) - {"id", "href"} == {column.field for column in COLUMNS}


def test_every_column_says_what_it_is(store):
    for column in (*COLUMNS, *SITE_COLUMNS):
        assert column.says
    (row, *_) = rows_of(store.detail("first", NOW).sites)
    assert set(row) - {"id"} == {column.field for column in SITE_COLUMNS}


def test_progress_says_once_whom_it_waits_for(store):
    running = store.detail("second & <b>", NOW).summary
    text = progress_text(running)
    assert text.startswith("Running. 1 of 4 rounds done, about 12 min 44 s left at 5 min 0 s")
    assert text.count("waits for") == 1
    assert progress_text(store.detail("first", NOW).summary) == "Finished. 6 of 6 rounds done."


def test_two_runs_are_compared_number_by_number_and_setting_by_setting(store):
    pair = store.detail("first", NOW), store.detail("second & <b>", NOW)
    numbers = {row["what"]: (row["a"], row["b"]) for row in number_rows(pair)}
    assert numbers["State"] == ("finished", "running")
    assert numbers["Methods"] == ("FedAvg, FedProx", "FedAvg")
    settings = {row["what"]: row for row in setting_rows(*(d.files.config for d in pair))}
    assert settings["federation.rounds"] == {
        "id": "federation.rounds",
        "what": "federation.rounds",
        "a": "3",
        "b": "4",
    }
    assert settings["privacy.epsilon"]["b"] == "not set"
    assert "federation.local_steps" not in settings
