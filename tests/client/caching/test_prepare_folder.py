"""`consilium preprocess` says in plain words what it did, and stops before what cannot work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plan(run: Run, tiny_study: Any, tmp_path: Path) -> Path:
    found, made = tmp_path / "fingerprint.json", tmp_path / "plan.json"
    assert run("fingerprint", tiny_study.data, "-o", found)[0] == 0
    assert run("plan", found, "-o", made)[0] == 0
    return made


def test_what_was_done_is_said_per_configuration(
    run: Run, tiny_study: Any, plan: Path, tmp_path: Path
) -> None:
    command = ("preprocess", tiny_study.data, "--plan", plan, "-o", tmp_path / "cache")
    code, words, progress = run(*command)
    assert code == 0
    assert words.startswith(f"{tmp_path}/cache: 3d_fullres: 7 cases: 7 prepared, 0 already there; ")
    assert words.endswith(" MiB\n")
    assert "inspect: 7 of 7" in progress
    assert "preprocess 3d_fullres: 7 of 7" in progress
    _, words, _ = run(*command, "--configuration", "2d", "--configuration", "3d_fullres")
    assert "2d: 7 cases: 7 prepared, 0 already there; " in words
    assert "3d_fullres: 7 cases: 0 prepared, 7 already there; " in words


def test_what_verifying_finds_damaged_is_made_again(
    run: Run, tiny_study: Any, plan: Path, tmp_path: Path
) -> None:
    command = ("preprocess", tiny_study.data, "--plan", plan, "-o", tmp_path / "cache")
    run(*command)
    damaged = next((tmp_path / "cache").glob("*/*/labels.b2nd"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert ": 0 prepared, 7 already there; " in run(*command)[1]
    words = run(*command, "--verify")[1]
    assert ": 1 prepared (1 of them again: damaged), 6 already there; " in words
    assert damaged.read_bytes() == content


def test_a_budget_that_is_too_small_stops_it(
    run: Run, tiny_study: Any, plan: Path, tmp_path: Path
) -> None:
    code, words, complaint = run(
        *("preprocess", tiny_study.data, "--plan", plan, "-o", tmp_path / "cache"),
        *("--max-disk-gb", "0.0001"),
    )
    assert (code, words) == (2, "")
    assert "the cache needs" in complaint
    assert "budget 0.1 MiB, 0.0 MiB of it used" in complaint
    assert not list((tmp_path / "cache").glob("*/*"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--configuration", "3d_lowres"), "--configuration 3d_lowres: expected one of the plan's"),
        (("--task", "hippocampus"), "expected one for the channels"),
    ],
)
def test_what_does_not_fit_the_plan_is_refused(
    run: Run,
    tiny_study: Any,
    plan: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    command = ("preprocess", tiny_study.data, "--plan", plan, "-o", tmp_path / "cache")
    code, _, said = run(*command, *arguments)
    assert code == 2
    assert complaint in said
