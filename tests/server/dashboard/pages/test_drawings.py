import json
from datetime import UTC, datetime

import numpy as np
import pytest

from server.dashboard.alarms import Limits
from server.dashboard.pages.curves import (
    EVERY_METHOD,
    Choice,
    dice_drawing,
    first_choice,
    loss_drawing,
    points_of,
)
from server.dashboard.pages.round_drawings import (
    round_drawing,
    round_rows,
    timeline_drawing,
    wait_rows,
    waiting_drawing,
)
from server.dashboard.pages.updates_view import norms_drawing
from server.dashboard.store import RunStore
from simulation.invented_events import InventedRun
from simulation.invented_runs import write_invented

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def rounds_of(folder, **fields):
    """Return the rounds of a made-up run by method."""
    run = InventedRun("made-up", **fields)
    write_invented(folder, run, NOW)
    store = RunStore(folder, Limits())
    store.poll(NOW)
    return store.detail("made-up", NOW).rounds


def names(drawing):
    return [series["name"] for series in drawing.options["series"]]


def keys_in(value):
    """Return every key of a nested value, as it is sent to a browser."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_in(inner)}
    if isinstance(value, list):
        return {key for inner in value for key in keys_in(inner)}
    return set()


def test_few_sites_are_all_drawn_beside_their_mean(tmp_path):
    rounds = rounds_of(tmp_path, n_sites=3, n_rounds=5, methods=("fedavg",))
    drawing = dice_drawing(rounds, first_choice(rounds))
    lines = ["mean over sites", "site-01", "site-02", "site-03"]
    assert names(drawing)[-4:] == lines
    assert drawing.options["legend"]["data"] == ["lowest to highest site", *lines]


def test_of_60_sites_the_mean_and_the_band_are_drawn_and_chosen_ones(tmp_path):
    rounds = rounds_of(tmp_path, n_sites=60, n_rounds=3, methods=("fedavg",))
    choice = first_choice(rounds)
    assert len(dice_drawing(rounds, choice).options["series"]) == 3
    chosen = dice_drawing(rounds, Choice("fedavg", sites=("site-07", "nobody")))
    assert names(chosen)[2:] == ["mean over sites", "site-07"]


def test_every_method_is_a_line_where_all_are_chosen(tmp_path):
    rounds = rounds_of(tmp_path, n_rounds=4)
    assert names(loss_drawing(rounds, Choice(EVERY_METHOD))) == ["FedAvg", "FedProx"]


def test_the_table_of_a_chart_has_its_numbers(tmp_path):
    rounds = rounds_of(tmp_path, n_sites=2, n_rounds=3, methods=("fedavg",))
    drawing = dice_drawing(rounds, Choice("fedavg", "WT"))
    rows = drawing.rows()
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    shown = dict(drawing.options["series"][-1]["data"])
    assert rows[3]["line0"] == pytest.approx(shown[3], abs=1e-5)


def test_a_run_that_keeps_its_losses_says_why_nothing_is_drawn(tmp_path):
    rounds = rounds_of(tmp_path, n_rounds=2, private=True)
    drawing = loss_drawing(rounds, first_choice(rounds))
    assert "differential privacy" in drawing.missing


def test_masked_runs_are_drawn_from_their_sums(tmp_path):
    rounds = rounds_of(tmp_path, n_rounds=4, masked=True, methods=("fedavg",))
    drawing = dice_drawing(rounds, first_choice(rounds))
    assert drawing.missing == ""
    assert names(drawing)[0] == "mean over sites"
    assert names(norms_drawing(rounds["fedavg"], ())) == [
        "norm of the mean change (only the sum is seen)"
    ]


def test_a_long_line_is_thinned_and_keeps_its_peak():
    values = np.linspace(0.0, 0.5, 5000)
    values[1234] = 0.9
    points = points_of(values)
    assert len(points) <= 400
    assert (1234, 0.9) in points


def test_a_band_reaches_across_zero(tmp_path):
    rounds = rounds_of(tmp_path, n_rounds=6, methods=("fedavg",))
    drawing = loss_drawing(rounds, first_choice(rounds))
    assert {series["stackStrategy"] for series in drawing.options["series"][:2]} == {"all"}


def test_a_round_names_whom_it_waited_for_and_who_failed(tmp_path):
    rounds = rounds_of(tmp_path, n_sites=4, n_rounds=5, methods=("fedavg",), failing="site-02")
    rows = round_rows(rounds["fedavg"])
    slowest = rounds["fedavg"].training_s[5]
    assert [row["failed"] for row in rows] == ["", "", "site-02", "site-02", "site-02"]
    assert rows[4]["training"] == pytest.approx(np.nanmax(slowest))
    assert rows[4]["seconds"] == pytest.approx(rows[4]["training"] + rows[4]["rest"])
    waits = wait_rows(rounds["fedavg"])
    assert sum(row["rounds"] for row in waits) == 5
    assert sum(row["share"] for row in waits) == pytest.approx(1.0)
    marks = waiting_drawing(rounds["fedavg"]).options["series"]
    assert [len(series["data"]) for series in marks] == [5, 3]


def test_an_unknown_round_says_so(tmp_path):
    rounds = rounds_of(tmp_path, n_rounds=2, methods=("fedavg",))
    assert "round 77" in round_drawing(rounds["fedavg"], 77).missing


def test_no_name_becomes_a_key_that_a_page_could_take_for_a_program(tmp_path):
    rounds = rounds_of(tmp_path, n_sites=3, n_rounds=2, methods=("fedavg",))
    found = rounds["fedavg"]
    drawings = (
        dice_drawing(rounds, first_choice(rounds)),
        timeline_drawing(found),
        waiting_drawing(found),
        round_drawing(found, 1),
        norms_drawing(found, ("site-01",)),
    )
    for drawing in drawings:
        json.dumps(drawing.options, allow_nan=False)
        assert not [key for key in keys_in(drawing.options) if "site" in key or key[0] == ":"]
