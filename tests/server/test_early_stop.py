"""A method stops when the sites' validation says that it no longer gets better."""

from pathlib import Path

import pytest

from common.federation import EarlyStop
from server.early_stop import stops
from server.event_log import EventLog
from server.events import SiteValidated

PATIENT = EarlyStop(patience_rounds=2, min_improvement=0.01)


def write(path: Path, curve: dict[int, tuple[float, float]], method: str = "fedavg") -> Path:
    """Write the Dice of two regions after each round, at two sites."""
    log = EventLog(path)
    for round_, (one, other) in curve.items():
        for site, dice in (("alpha", one), ("beta", other)):
            log.append(
                SiteValidated(
                    method=method,
                    round=round_,
                    site=site,
                    dice={"WT": dice + 0.1, "TC": dice - 0.1},
                )
            )
    return path


RISING_THEN_FLAT = {1: (0.4, 0.6), 2: (0.6, 0.6), 3: (0.602, 0.602), 4: (0.6, 0.606), 5: (0.7, 0.7)}


@pytest.mark.parametrize(
    ("next_round", "is_over"),
    [(1, False), (2, False), (4, False), (5, False), (6, True), (7, False)],
)
def test_it_stops_after_rounds_without_improvement(
    tmp_path: Path, next_round: int, is_over: bool
) -> None:
    events = write(tmp_path / "events.jsonl", RISING_THEN_FLAT)
    reason = stops(PATIENT, events, "fedavg", next_round)
    assert (reason is not None) == is_over
    if reason:
        assert "Dice 0.6000 after round 2, and no better by 0.01 up to round 4" in reason


def test_the_round_whose_answers_may_be_incomplete_has_no_say(tmp_path: Path) -> None:
    events = write(tmp_path / "events.jsonl", RISING_THEN_FLAT)
    again = write(tmp_path / "again.jsonl", {n: RISING_THEN_FLAT[n] for n in (1, 2, 3, 4)})
    for next_round in range(1, 7):
        found = (stops(PATIENT, path, "fedavg", next_round) for path in (events, again))
        assert len(set(found)) == 1


def test_without_validation_or_without_the_wish_it_goes_on(tmp_path: Path) -> None:
    events = write(tmp_path / "events.jsonl", RISING_THEN_FLAT)
    assert stops(None, events, "fedavg", 6) is None
    assert stops(PATIENT, events, "fedprox", 6) is None
