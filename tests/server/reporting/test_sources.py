"""A number and its source travel together through joining and escaping, and part at the end."""

from hypothesis import given
from hypothesis import strategies as st

from server.reporting.pages import markdown_text
from server.reporting.sources import (
    Sourced,
    numbers_csv,
    numbers_of,
    sourced,
    where,
    without_sources,
)


def test_a_page_is_what_people_read_and_its_numbers_are_a_list() -> None:
    rate = sourced("0.01", "config.toml: training.learning_rate")
    steps = sourced(40, where("events.jsonl: sum of SiteTrained.n_steps", site="a", method=None))
    page = f"Rate {rate}, {steps} steps."
    assert without_sources(page) == "Rate 0.01, 40 steps."
    assert numbers_csv(numbers_of(page)) == (
        "number,source\n"
        "0.01,config.toml: training.learning_rate\n"
        "40,events.jsonl: sum of SiteTrained.n_steps where site=a\n"
    )


@given(st.text("ab_*|~[]<>&#$ ,", min_size=1, max_size=12))
def test_markdown_escapes_are_not_part_of_a_number_or_its_source(name: str) -> None:
    page = str(markdown_text(sourced(f"{name} 1", where("events.jsonl: x", site=name))))
    assert numbers_of(page) == (Sourced(f"{name} 1", f"events.jsonl: x where site={name}"),)


@given(st.text("\ue000\ue001\ue002a1", max_size=12))
def test_whatever_a_run_s_texts_hold_no_mark_is_left_on_the_page(text: str) -> None:
    page = without_sources(f"{text}{sourced('7', 'plan.json: hash')}{text}")
    assert not set(page) & set("\ue000\ue001\ue002")
