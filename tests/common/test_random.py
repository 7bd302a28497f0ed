"""The generator of a step depends on what the step is, and on nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.random import step_rng


def test_a_step_draws_the_same_numbers_on_every_machine() -> None:
    drawn = step_rng(7, "site-a", 2, 31, "patches").integers(2**32, size=4)
    assert drawn.tolist() == [1571675575, 4098307985, 3502631781, 3437183911]


@pytest.mark.parametrize(
    "other",
    [
        (8, "site-a", 2, 31, "patches"),
        (7, "site-b", 2, 31, "patches"),
        (7, "site-a", 3, 31, "patches"),
        (7, "site-a", 2, 32, "patches"),
        (7, "site-a", 2, 31, "noise"),
        (7, "site-a", 23, 1, "patches"),
    ],
)
def test_every_part_of_a_step_changes_the_numbers(other: tuple[int, str, int, int, str]) -> None:
    drawn = step_rng(*other).integers(2**32, size=4)
    assert drawn.tolist() != [1571675575, 4098307985, 3502631781, 3437183911]


@given(st.integers(0, 2**40), st.text(max_size=10), st.integers(0, 999), st.integers(0, 10**6))
def test_a_step_can_be_drawn_again(seed: int, site: str, round_: int, step: int) -> None:
    first = step_rng(seed, site, round_, step, "patches").random(3)
    assert step_rng(seed, site, round_, step, "patches").random(3).tolist() == first.tolist()
