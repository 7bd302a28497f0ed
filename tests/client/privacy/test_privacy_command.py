"""`consilium privacy`: what is spent, what is left, and noise for a target."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.chain.appending import append, head_file
from client.privacy.entry import FORMAT, NOISY_STEPS, RELEASED, new_entry
from client.privacy.ledger import open_ledger
from common.privacy.mechanism import NoisySteps


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "privacy.jsonl"
    open_ledger(path, 8.0, 1e-3, data_set="glioma 2026")
    steps = NoisySteps(sampling_rate=0.1, noise_multiplier=1.0, steps=50)
    for round_ in (1, 2):
        entry = new_entry(
            NOISY_STEPS, run="first", method="fedavg", round=round_, patients=20, steps=steps
        )
        append(path, entry, FORMAT)
    append(path, new_entry(RELEASED, run="first", what="counts of the data set"), FORMAT)
    return path


def test_it_says_what_is_spent_and_what_the_rest_buys(run: Callable, ledger: Path):
    code, out, err = run("privacy", ledger)
    assert (code, err) == (0, "")
    head, first, buys, left = out.splitlines()
    # epsilon of SETTINGS[3] of tests/common/privacy/test_accounting.py, 0.01 above the true value
    assert head == (
        "data set glioma 2026: budget epsilon 8 at delta 0.001; spent epsilon 4.795, left 3.205"
    )
    assert first == "run first (fedavg; 2 rounds, 100 steps): epsilon 4.795"
    assert buys.startswith("at the last run's rate and noise the rest buys 14")
    assert buys.endswith(" further steps, 2 rounds of its length")
    assert left.startswith("not private: run first: counts of the data set (first on 20")


def test_a_program_reads_the_same(run: Callable, ledger: Path, tmp_path: Path):
    code, out, _ = run("privacy", ledger, "--json", "--verify", "--plot", tmp_path / "e.svg")
    found = json.loads(out)
    assert code == 0
    assert found["spent"] == pytest.approx(4.795, abs=0.001)
    assert found["runs"][0]["steps"] == 100
    svg = (tmp_path / "e.svg").read_text()
    assert svg.startswith("<?xml")
    run("privacy", ledger, "--plot", tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == svg


def test_a_ledger_is_opened_once_and_changed_with_a_reason(run: Callable, tmp_path: Path):
    path = tmp_path / "deep" / "privacy.jsonl"
    given = ("privacy", path, "--open", "--epsilon", 8, "--delta", 0.001)
    assert run(*given, "--data-set", "glioma")[1].endswith(
        "budget epsilon 8 at delta 0.001; sites with up to 1000 patients train with it\n"
    )
    code, _, err = run(*given)
    assert code == 2
    assert "this one is open already, and another budget for it needs --reason" in err
    assert run(*given, "--reason", "board of 3 May")[0] == 0
    assert "the budget was changed: board of 3 May" in run("privacy", path)[1]


def test_it_finds_the_noise_for_a_target(run: Callable):
    code, out, _ = run(
        "privacy", "--calibrate", "--epsilon", 2, "--delta", 0.01, "--sampling-rate", 0.25,
        "--steps", 40,
    )  # fmt: skip
    assert code == 0
    head, _, *table = out.splitlines()
    noises = [float(line.split()[1]) for line in table]
    assert [float(line.split()[0]) for line in table] == [1, 2, 4, 8]
    assert noises == sorted(noises, reverse=True)
    assert head.startswith(f"noise multiplier {noises[1]:g} for epsilon 2: 40 steps")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected a ledger or a configuration, or --calibrate, found neither"),
        (("{}/none.jsonl",), "expected the privacy ledger of this data set, found none"),
        (("{}/privacy.jsonl", "--open", "--delta", "0.1"), "--epsilon: missing"),
        (("{}/new.jsonl", "--open", "--epsilon", "0", "--delta", "0.1"), "--epsilon: expected a"),
        (("{}/new.jsonl", "--open", "--epsilon", "1", "--delta", "1"), "--delta: expected a"),
        (("{}/run.toml", "--open", "--epsilon", "1", "--delta", "0.1"), "name of a ledger"),
        (("--calibrate", "--epsilon", "1", "--delta", "0.1"), "--sampling-rate: missing"),
        (("{}/none.toml",), "expected a readable TOML file"),
    ],
)
def test_a_mistake_is_one_line(run: Callable, ledger: Path, arguments, words: str):
    code, out, err = run("privacy", *(text.format(ledger.parent) for text in arguments))
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_damaged_ledger_is_a_mistake(run: Callable, ledger: Path):
    head_file(ledger).unlink()
    code, out, err = run("privacy", ledger, "--verify")
    assert (code, out) == (2, "")
    assert "privacy.head: is missing" in err


def test_a_line_that_is_not_understood_leaves_no_bound(run: Callable, ledger: Path):
    append(ledger, new_entry("noisy-median"), FORMAT)
    out = run("privacy", ledger)[1]
    assert "what was spent has no bound; nothing private is trained" in out
    assert "warning: entry 5: 'noisy-median' is not understood; its cost counts as infinite" in out
