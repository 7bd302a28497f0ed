"""Programs that end at once, and one that lives, with a clock that the test moves."""

import logging
import time
from pathlib import Path

import pytest

from server.coordinator.children import Child, close_log, ending


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def child(tmp_path, clock):
    """Return what makes a child out of a module of Python's."""
    made: list[Child] = []

    def make(module: str) -> Child:
        made.append(Child("program", module, tmp_path, tmp_path / "logs", clock))
        return made[-1]

    yield make
    for one in made:
        one.end()
    close_log(logging.getLogger("consilium.child.program"))


def tended_until_it_ended(child: Child) -> str:
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline
        if line := child.tend():
            return line
        time.sleep(0.05)


def test_a_program_that_ends_is_started_again_after_longer_and_longer_waits(child, clock):
    program = child("no_such_module")
    assert program.tend().startswith("program started (process ")
    for wait_s in (1, 2, 4, 8, 16, 32, 60, 60):
        line = tended_until_it_ended(program)
        assert line == f"program ended with exit code 1; it is started again in {wait_s} s"
        assert program.state.pid is None
        clock.now += wait_s - 0.5
        assert program.tend() is None
        clock.now += 0.5
        assert program.tend().startswith("program started again")
    assert (program.state.n_starts, program.state.last_exit) == (9, 1)


def test_a_program_that_lived_long_is_started_again_soon(child, clock):
    program = child("no_such_module")
    for _ in range(2):
        program.tend()
        clock.now += 100
        assert "again in 1 s" in tended_until_it_ended(program)
        clock.now += 1


def test_what_a_program_says_is_in_its_log(child, tmp_path: Path):
    program = child("no_such_module")
    program.tend()
    tended_until_it_ended(program)
    deadline = time.monotonic() + 20
    while "No module named no_such_module" not in (tmp_path / "logs" / "program.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("code", "words"), [(0, "with exit code 0"), (-9, "by signal SIGKILL")])
def test_endings_in_words(code, words):
    assert ending(code) == words
