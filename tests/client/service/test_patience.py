"""How long a site waits before it looks for the next message; the clock is the test's."""

import pytest
from flwr.supernode import start_client_internal as start

from client.service import hooks
from client.service.hooks.patience import Patience


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds

    def time(self) -> str:
        return "of the clock"


@pytest.mark.parametrize(
    ("idle_s", "wanted_s", "waits_s"),
    [
        (0.0, 3.0, 0.5),  # just after work: the next question may be there already
        (20.0, 3.0, 1.0),  # a twentieth
        (60.0, 3.0, 3.0),
        (86400.0, 3.0, 3.0),  # never longer than Flower itself
        (0.0, 0.5, 0.1),  # for the task on the same machine
        (4.0, 0.5, 0.2),
        (600.0, 0.5, 0.5),
    ],
)
def test_a_site_waits_a_share_of_the_time_since_it_was_needed(idle_s, wanted_s, waits_s):
    clock = Clock()
    patience = Patience(clock)
    clock.now_s += idle_s
    patience.sleep(wanted_s)
    assert clock.waits == [pytest.approx(waits_s)]


def test_a_message_makes_the_waits_short_again():
    clock = Clock()
    patience = Patience(clock)
    clock.now_s += 600.0
    patience.needed()
    patience.sleep(3.0)
    assert clock.waits == [0.5]
    assert patience.time() == "of the clock"


def test_flowers_own_loop_looks_again_soon_after_a_message(monkeypatch):
    """Two messages with silence before and after: as Flower's `while True` calls them."""
    clock, pulled = Clock(), iter([None, 7, None, 7, None])
    monkeypatch.setattr(start, "time", clock)
    monkeypatch.setattr(start, "_pull_and_store_message", lambda: next(pulled))
    monkeypatch.setattr(start, "_push_messages", lambda: clock.sleep(300.0))  # the site trains
    hooks.look_again_soon()
    clock.now_s += 1000.0
    for _ in range(5):
        if start._pull_and_store_message() is None:
            start.time.sleep(3)
        else:
            start._push_messages()
    assert clock.waits == [3.0, 300.0, 0.5, 300.0, 0.5]
