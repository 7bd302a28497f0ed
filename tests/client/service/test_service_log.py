"""The site's log in words: what was asked and answered, and what the policy refused and why."""

import pytest

from client.service.service_log import in_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("INFO train received", "working: train a round"),
        ("WARNING clock: ahead", "warning: clock: ahead"),
        (
            "WARNING evaluate.test refused: proposal abc: waits",
            "refused by this site's policy: test the model: proposal abc: waits",
        ),
    ],
)
def test_a_line_of_the_log_in_words(line: str, words: str) -> None:
    assert in_words(f"2026-01-02 03:04:05,678 {line}") == f"2026-01-02 03:04:05  {words}"


def test_of_a_failure_the_line_says_where_its_text_is() -> None:
    found = in_words("2026-01-02 03:04:05,678 ERROR train failed")
    assert found is not None
    assert "only a code was sent" in found
    assert in_words("Traceback (most recent call last):") is None
