"""Noise at the coordinator: no site changes the sum by more than the clip norm."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from common.axes import Weights
from common.federation import Federation, lacking
from common.privacy.site_level import SiteLevelPrivacy
from common.secure_aggregation import SecureAggregation
from server.event_lines import line_of
from server.event_log import EventLog, read_events
from server.events import SitePrivacySpent
from server.reporting.privacy_words import privacy_section
from server.site_privacy import aggregate, clipped, site_epsilon, warning_of
from server.strategies import SiteUpdate, build_strategy

SETTINGS = SiteLevelPrivacy(clip_norm=2.0, noise_multiplier=1.5, delta=1e-3)


def federation(**fields: object) -> Federation:
    settings: dict[str, object] = {
        "seed": 1,
        "methods": ("fedavg",),
        "rounds": 3,
        "local_steps": 1,
        "held_out": (),
        "min_sites": 1,
        "weighting": "uniform",
        "site_privacy": SETTINGS,
    }
    return Federation(**{**settings, **fields})  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Config:
    federation: Federation


@dataclass(frozen=True)
class _Folder:
    events: Path


@dataclass(frozen=True)
class Run:
    """As much of an experiment as a round's aggregation looks at."""

    path: Path
    chosen: Federation = field(default_factory=federation)

    @property
    def config(self) -> _Config:
        return _Config(self.chosen)

    @property
    def folder(self) -> _Folder:
        return _Folder(self.path)

    @property
    def log(self) -> EventLog:
        return EventLog(self.path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "events.jsonl").touch()
    return Run(tmp_path / "events.jsonl")


def weights(value: float, n: int = 4) -> Weights:
    return {"a": np.full((n, 2), value, np.float32), "b": np.full(3, -value, np.float32)}


def norm_of(found: Weights, before: Weights) -> float:
    parts = [np.subtract(found[n], before[n], dtype=np.float64).ravel() for n in found]
    return float(np.linalg.norm(np.concatenate(parts)))


@pytest.mark.parametrize("value", [1e-30, 1.0, 1e6, 3e30])
def test_the_change_of_a_site_is_clipped_over_all_its_tensors(value: float):
    before = weights(100.0)
    sent = {name: tensor + np.float32(value) for name, tensor in before.items()}
    assert norm_of(clipped(sent, before, 2.0), before) <= 2.0


def test_a_small_change_is_left_as_it_is():
    before, sent = weights(0.5), weights(0.75)
    found = clipped(sent, before, 2.0)
    assert all(np.array_equal(found[name], sent[name]) for name in sent)


def test_the_noise_of_a_round_has_the_deviation_that_is_accounted_for(run: Run):
    zero = {"w": np.zeros(200_000, np.float32)}
    strategy = build_strategy("fedavg", run.chosen)
    updates = [SiteUpdate(f"s{i}", 1, zero) for i in range(3)]
    state = aggregate(run, strategy, {"global": zero}, iter(updates), 5, 1)
    noise = state["global"]["w"]
    assert np.std(noise) == pytest.approx(1.5 * 2.0 / 5, rel=0.01)  # z * S / sites asked
    assert abs(np.mean(noise)) < 0.01
    again = aggregate(run, strategy, {"global": zero}, iter(updates), 5, 1)
    assert not np.array_equal(noise, again["global"]["w"])


def test_a_site_that_does_not_answer_counts_as_no_change(run: Run):
    quiet = Run(
        run.path,
        federation(
            site_privacy=SiteLevelPrivacy(clip_norm=100.0, noise_multiplier=1e-6, delta=1e-3)
        ),
    )
    before, sent = weights(0.0), weights(1.0)
    strategy = build_strategy("fedavg", quiet.chosen)
    updates = [SiteUpdate("a", 7, sent), SiteUpdate("b", 1, sent)]
    state = aggregate(quiet, strategy, {"global": before}, updates, 4, 1)
    np.testing.assert_allclose(state["global"]["a"], 0.5, atol=1e-3)


def test_every_round_costs_more_and_a_repeated_one_again(run: Run):
    zero = weights(0.0)
    strategy = build_strategy("fedavg", run.chosen)
    for round_ in (1, 2, 2):
        aggregate(run, strategy, {"global": zero}, [SiteUpdate("a", 1, zero)], 4, round_)
    events = [e for _, e in read_events(run.path) if isinstance(e, SitePrivacySpent)]
    assert [e.round for e in events] == [1, 2, 2]
    # dp-accounting 0.6.0 (PLD, 1e-4) for 1 to 3 steps of noise 1.5, rate 1
    assert [e.epsilon for e in events] == pytest.approx([1.9119, 2.9186, 3.7532], abs=0.012)
    assert "4 sites, expected at least 100" in events[0].warning
    assert line_of(events[0], 3).startswith("fedavg round 1/3: site-level epsilon ")
    assert "the unit is a site, not a patient" in privacy_section((), events).site_level


def test_without_site_privacy_a_round_is_what_it_was(run: Run):
    plain = Run(run.path, federation(site_privacy=None))
    before, sent = weights(0.0), weights(1.0)
    strategy = build_strategy("fedavg", plain.chosen)
    state = aggregate(plain, strategy, {"global": before}, [SiteUpdate("a", 1, sent)], 4, 1)
    assert np.array_equal(state["global"]["a"], sent["a"])
    assert list(read_events(run.path)) == []


def test_it_warns_where_it_means_little():
    assert warning_of(SETTINGS, 1000, 10_000) == ""
    assert warning_of(SETTINGS, 1000, 10**7).endswith(
        "noise of norm 9.49 in a mean change of norm up to 2"
    )
    assert site_epsilon(SETTINGS, 0) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"methods": ("krum",), "n_faulty": 0}, "expected ones that use only the mean"),
        ({"methods": ("fedavg", "local-only")}, "found local-only"),
        ({"weighting": "cases"}, "expected 'uniform' with site_privacy"),
        (
            {"secure_aggregation": SecureAggregation(min_sites=3)},
            "expected none with secure_aggregation",
        ),
    ],
)
def test_it_is_refused_where_the_promise_would_not_hold(fields, words: str):
    assert any(words in line for line in lacking(federation(**fields)))
